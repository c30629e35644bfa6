"""A SOURCE to prepare: its parts, their order, and a hash of all of its content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from phi_train.corpus import BUILTIN, builtin_stories, documents_to_measure
from phi_train.datasets import DATASETS, dataset_file
from phi_train.documents import files_of
from phi_train.errors import DataError
from phi_train.ranges import Part, parts_of, pieces_in
from phi_train.shards import is_prepared

__all__ = ["Input", "Progress", "numbered", "open_input"]

Progress = Callable[[str, int, int], None]
"""Called with (phase, bytes done, bytes in all)."""

BLOCK = 1 << 20  # bytes
STORIES_A_PART = 1000


@dataclass(frozen=True)
class Input:
    """One source: its files, or its texts where it has none."""

    name: str
    hashes: list[str]  # SHA-256 of each file, or one of all texts
    files: list[Path] = field(default_factory=list)
    stamps: list[tuple[int, int]] = field(default_factory=list)  # (bytes, time) when hashed
    texts: list[str] = field(default_factory=list)
    nats: list[float] | None = None  # -log p of each text, where the source knows it

    @property
    def size(self) -> int:
        """Bytes to read; characters of texts."""
        return sum(size for size, _ in self.stamps) + sum(map(len, self.texts))

    @property
    def identity(self) -> list[Any]:
        """What two sources share if, and only if, they hold the same documents in one order."""
        return [[path.suffix.lower() for path in self.files], self.hashes]

    @property
    def facts(self) -> list[dict[str, Any]]:
        """Name, size and hash of each file, for a manifest."""
        return [
            {"name": str(path), "bytes": size, "sha256": sha256}
            for path, (size, _), sha256 in zip(self.files, self.stamps, self.hashes, strict=False)
        ]

    def parts(self, *, may_cut: bool) -> Iterator[Part]:
        """Its parts, in order."""
        for path in self.files:
            yield from parts_of(path, may_cut=may_cut)
        for first in range(0, len(self.texts), STORIES_A_PART):
            yield Part(Path(self.name), texts=tuple(self.texts[first : first + STORIES_A_PART]))

    def must_be_unchanged(self) -> None:
        """Raises DataError when a file is another than the one that was hashed."""
        for path, stamp in zip(self.files, self.stamps, strict=True):
            if _stamp(path) != stamp:
                raise DataError(f"{path} was changed while it was read: prepare it once more")


def open_input(name: str, *, held_out: bool, stories: int, progress: Progress) -> Input:
    """The source called `name`, read once for its hash.

    held_out: whether it is there to measure on; stories: how many to train on, of `builtin`.
    Raises DataError.
    """
    if name == BUILTIN:
        texts, nats = (
            documents_to_measure(name) if held_out else builtin_stories(stories, validation=False)
        )
        content = json.dumps(texts).encode()
        return Input(name, [hashlib.sha256(content).hexdigest()], texts=texts, nats=nats)
    if is_prepared(name):
        raise DataError(f"{name} is prepared already: give it to phi-train run as --data")
    files = files_of(dataset_file(name, held_out=held_out) if name in DATASETS else name)
    stamps = [_stamp(path) for path in files]
    total, done = sum(size for size, _ in stamps), 0
    hashes = []
    for path in files:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
                done += len(block)
                progress(f"reading {name}", min(done, total), total)
        hashes.append(digest.hexdigest())
    return Input(name, hashes, files, stamps)


def _stamp(path: Path) -> tuple[int, int]:
    facts = os.stat(path)
    return facts.st_size, facts.st_mtime_ns


def numbered(parts: Iterator[Part]) -> Iterator[Part]:
    """The same parts, each with its place among the source's documents: reads them all."""
    document = character = 0
    for part in parts:
        yield replace(part, first_document=document, first_character=character)
        for piece in pieces_in(part):
            character += len(piece.text)
            if piece.closes:
                document, character = document + 1, 0
