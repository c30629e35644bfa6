"""A folder of token shards: what is in it, how it is written and opened.

    manifest.json     what all of it is and was made of; written last: without it nothing counts
    tokenizer.json
    train.tokens      ids, uint16, little-endian, each document followed by one end token
    train.documents   for each document two int64: where its ids end, and the bytes of its text
    valid.tokens  valid.documents   the same for what is held out
    valid.nats        float64: -log p of each document, where the source knows it

The big files are memory-mapped, so opening takes no time and no memory whatever their size.
"""

from __future__ import annotations

import json
import os
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_tokenizer import Tokenizer
from phi_train.errors import DataError
from phi_train.split import Side
from phi_train.tokens import TokenStream

__all__ = [
    "FORMAT",
    "MANIFEST",
    "SIDES",
    "PreparedData",
    "ShardWriter",
    "is_prepared",
    "open_prepared",
]

Array = NDArray[Any]

FORMAT = "phi-tokens"
VERSION = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
SIDES: tuple[Side, ...] = ("train", "valid")
TOKEN, INDEX, NATS = np.dtype("<u2"), np.dtype("<i8"), np.dtype("<f8")
BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class PreparedData:
    """A prepared folder, opened: ids and index stay on the disk."""

    tokenizer: Tokenizer
    train: TokenStream
    valid: TokenStream
    manifest: dict[str, Any]


def is_prepared(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a folder that `phi-train data prepare` has finished."""
    return os.path.isfile(os.path.join(path, MANIFEST))


def open_prepared(path: str | os.PathLike[str], *, verify: bool = False) -> PreparedData:
    """Both sides of a prepared folder, as read-only arrays on the disk, and its tokenizer.

    verify: compare every byte with the checksums, which takes as long as reading it all; sizes
    are compared in any case. Raises DataError for a folder that is not whole.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    try:
        return _open(folder, manifest, verify=verify)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(_damaged(folder / MANIFEST, f"it is no manifest ({error!r})")) from error


def _open(folder: Path, manifest: dict[str, Any], *, verify: bool) -> PreparedData:
    for name, facts in manifest["files"].items():
        _check_file(folder / name, facts, verify=verify)
    tokenizer_bytes = (folder / TOKENIZER).read_bytes()
    if zlib.crc32(tokenizer_bytes) != manifest["files"][TOKENIZER]["crc32"]:
        raise DataError(_damaged(folder / TOKENIZER, "its content has changed"))
    train, valid = (_open_side(folder, side, manifest) for side in SIDES)
    return PreparedData(Tokenizer.from_bytes(tokenizer_bytes), train, valid, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder. Raises DataError."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        sound = manifest["format"] == FORMAT and set(manifest["sides"]) == set(SIDES)
        version = manifest["version"]
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} is not a prepared folder, it has no {MANIFEST}: make one with "
            "phi-train data prepare"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(_damaged(path, f"it is no manifest ({error!r})")) from error
    if not sound:
        raise DataError(f"{path} is not a manifest of {FORMAT}: choose another folder")
    if version != VERSION:
        raise DataError(
            f"{path} has version {version!r}, this phi-train reads {VERSION}: prepare it again"
        )
    return dict(manifest)


def _check_file(path: Path, facts: dict[str, int], *, verify: bool) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise DataError(_damaged(path, "it is missing")) from error
    if size != facts["bytes"]:
        raise DataError(_damaged(path, f"it has {size:,} bytes, not {facts['bytes']:,}"))
    if verify and checksum_of(path) != facts["crc32"]:
        raise DataError(_damaged(path, "its content has changed"))


def _damaged(path: Path, how: str) -> str:
    return f"{path} is damaged: {how}; run phi-train data prepare again"


def _open_side(folder: Path, side: Side, manifest: dict[str, Any]) -> TokenStream:
    facts, files = manifest["sides"][side], manifest["files"]
    ids = np.memmap(folder / f"{side}.tokens", TOKEN, mode="r")
    index = np.memmap(folder / f"{side}.documents", INDEX, mode="r").reshape(-1, 2)
    if ids.size != facts["tokens"] or len(index) != facts["documents"] or index[-1, 0] != ids.size:
        raise DataError(_damaged(folder / f"{side}.documents", "it does not fit the tokens"))
    nats = folder / f"{side}.nats"
    return TokenStream(
        ids,
        manifest["end_token"],
        facts["documents"],
        facts["text_bytes"],
        document_bytes=index[:, 1],
        source_nats=np.fromfile(nats, NATS) if nats.name in files else None,
        known_checksum=(ids.size, files[f"{side}.tokens"]["crc32"]),
        document_ends=index[:, 0],
    )


def checksum_of(path: Path) -> int:
    """CRC-32 of a file."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            crc = zlib.crc32(block, crc)
    return crc


class ShardWriter:
    """Appends one side's documents to its files, and can go on where `state` was taken."""

    def __init__(self, folder: Path, side: Side, state: dict[str, int] | None = None) -> None:
        """Raises OSError; ValueError when the files are shorter than `state` says."""
        self.side = side
        self._state = state or {
            **dict.fromkeys(("tokens", "documents", "text_bytes", "open_bytes"), 0),
            **dict.fromkeys(("tokens_crc32", "documents_crc32"), 0),
        }
        sizes = {"tokens": self.tokens * TOKEN.itemsize, "documents": self.documents * 16}
        self._files = {}
        for kind, size in sizes.items():
            file = (folder / f"{side}.{kind}").open("ab")
            self._files[kind] = file
            if file.tell() < size:
                self.close()
                raise ValueError(f"{file.name} is shorter than it was")
            file.truncate(size)

    @property
    def tokens(self) -> int:
        """Written so far."""
        return self._state["tokens"]

    @property
    def documents(self) -> int:
        """Written so far, and ended."""
        return self._state["documents"]

    @property
    def facts(self) -> dict[str, int]:
        """What the manifest says of a side."""
        return {name: self._state[name] for name in ("tokens", "documents", "text_bytes")}

    def append(self, ids: Array, ends: Array, sizes: Array) -> None:
        """Documents, or a piece of one.

        ids: [m] with the end tokens; ends [d]: where each document that is ended ends in them;
        sizes: bytes of text, [d], or [d + 1] when the last document goes on.
        """
        state = self._state
        sizes = np.asarray(sizes, INDEX).copy()
        state["text_bytes"] += int(sizes.sum())
        if sizes.size:
            sizes[0] += state["open_bytes"]
            state["open_bytes"] = int(sizes[-1]) if sizes.size > len(ends) else 0
        index = np.stack([np.asarray(ends, INDEX) + self.tokens, sizes[: len(ends)]], axis=1)
        self._write("tokens", np.ascontiguousarray(ids, TOKEN))
        self._write("documents", index.astype(INDEX))
        state["tokens"] += len(ids)
        state["documents"] += len(ends)

    def _write(self, kind: str, values: Array) -> None:
        data = values.tobytes()
        self._files[kind].write(data)
        self._state[f"{kind}_crc32"] = zlib.crc32(data, self._state[f"{kind}_crc32"])

    def sync(self) -> dict[str, int]:
        """Brings everything to the disk; returns the state to go on from."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        return dict(self._state)

    @property
    def files(self) -> dict[str, dict[str, int]]:
        """Name -> bytes and CRC-32 of each file, for the manifest."""
        return {
            f"{self.side}.{kind}": {
                "bytes": file.tell(),
                "crc32": self._state[f"{kind}_crc32"],
            }
            for kind, file in self._files.items()
        }

    def close(self) -> None:
        """Closes the files; what could not be written stays unwritten."""
        for file in self._files.values():
            with suppress(OSError):
                file.close()
