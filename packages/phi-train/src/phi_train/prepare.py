"""Any SOURCE into a folder of token shards (see `phi_train.shards`), once.

The folder is a function of the text, the tokenizer and the split. A second call finds the same
hashes and does nothing; one after an interruption of any kind goes on at the last journal entry.
All work happens in DIR/.partial and is moved in place when it is whole, the manifest last.

>>> from phi_train.prepare import prepare
>>> prepare("stories.txt", "stories-tokens", vocab_size=1024)  # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from phi_model.files import atomic_write
from phi_tokenizer import Tokenizer
from phi_train.corpus import STORIES, has_two_sides
from phi_train.documents import END_OF_TEXT, UNFINISHED
from phi_train.encoding import encode_parts
from phi_train.errors import ConfigError, DataError
from phi_train.inputs import Input, Progress, numbered, open_input
from phi_train.one_process import only_one
from phi_train.ranges import Part, is_cut_safe, pieces_in
from phi_train.run_folder import RunFolder, naming
from phi_train.shards import (
    FORMAT,
    MANIFEST,
    NATS,
    SIDES,
    TOKENIZER,
    VERSION,
    PreparedData,
    ShardWriter,
    is_prepared,
    open_prepared,
)
from phi_train.split import ByHash, OneSide, Side, Split, Tail, tail_of
from phi_train.tokens import FEW_DOCUMENTS, end_token_of

__all__ = [
    "MAX_VOCAB",
    "SAMPLE_BYTES",
    "PreparedData",
    "Report",
    "is_prepared",
    "open_prepared",
    "prepare",
]

JOURNAL = "journal.json"
MAX_VOCAB = 1 << 16  # what uint16 holds
SAMPLE_BYTES = 1 << 26  # of text to learn a tokenizer from: a second or two
JOURNAL_BYTES = 1 << 26  # of text between two journal entries

Facts = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Report:
    """What `prepare` did."""

    folder: Path
    already: bool  # True: everything was there, nothing was done
    manifest: dict[str, Any]


def prepare(
    source: str,
    out: str | os.PathLike[str],
    *,
    tokenizer: Tokenizer | str | os.PathLike[str] | None = None,
    vocab_size: int = 1024,
    valid: str = "",
    stories: int = STORIES,
    workers: int = 1,
    progress: Progress | None = None,
) -> Report:
    """Makes the folder `out` of token shards from `source`.

    tokenizer: one, or a tokenizer.json; without it one of vocab_size tokens is learnt from the
    training documents. valid: the source of the held-out side; without it a part of `source`, by
    hash. stories: how many to train on when the source is `builtin`. workers: processes that
    encode; more than 1 needs `if __name__ == "__main__":` in a script that calls this.

    Raises DataError or ConfigError for what cannot be prepared; OSError when files cannot be
    written: the folder then is what it was, and the next call goes on.
    """
    if workers < 1:
        raise ConfigError(f"--workers is {workers}; it must be 1 or more")
    given = tokenizer if isinstance(tokenizer, Tokenizer | None) else Tokenizer.load(tokenizer)
    _check_vocabulary(given, vocab_size)
    folder, tell = Path(out), progress or (lambda *_: None)
    names = [source, valid or source] if valid or has_two_sides(source) else [source]
    inputs = [
        open_input(name, held_out=place > 0, stories=stories, progress=tell)
        for place, name in enumerate(names)
    ]
    if RunFolder(folder).holds_a_run:
        raise ConfigError(f"{folder} holds a run: choose another folder with --out")
    if not os.fspath(out):
        raise ConfigError("no folder for what is prepared: name one with --out")
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(folder):
        try:
            return _Job(folder, inputs, given, vocab_size, workers, tell).run()
        except DataError:
            if not existed:  # the text is at fault: leave nothing behind
                shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
                with suppress(OSError):
                    folder.rmdir()
            raise


def _check_vocabulary(given: Tokenizer | None, vocab_size: int) -> None:
    size = vocab_size if given is None else given.n_vocab
    if size > MAX_VOCAB:
        raise ConfigError(
            f"the vocabulary has {size:,} tokens; shards hold ids of 16 bits: at most {MAX_VOCAB:,}"
        )
    if given is not None:
        end_token_of(given)
    elif size < 257:
        raise ConfigError(f"--vocab-size is {size}; 256 bytes and {END_OF_TEXT} need 257 or more")


class _Job:
    """One folder to be made; `inputs` are the source and, where it is another, the held-out one."""

    def __init__(
        self,
        out: Path,
        inputs: list[Input],
        tokenizer: Tokenizer | None,
        vocab_size: int,
        workers: int,
        progress: Progress,
    ) -> None:
        self.out, self.partial, self.inputs = out, out / UNFINISHED, inputs
        self.tokenizer, self.vocab_size = tokenizer, vocab_size
        self.workers, self.progress = workers, progress
        learnt = vocab_size if tokenizer is None else _sha256(tokenizer)
        identity = json.dumps([VERSION, learnt, [source.identity for source in inputs]])
        self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()

    def run(self) -> Report:
        if (manifest := self._whole()) is not None:
            shutil.rmtree(self.partial, ignore_errors=True)
            return Report(self.out, True, manifest)
        if self._journal().get("fingerprint") != self.fingerprint:
            shutil.rmtree(self.partial, ignore_errors=True)
            self.partial.mkdir()
            self._write_journal({})
        if not (self.partial / MANIFEST).exists():
            self._write()
        self._publish()
        return Report(self.out, False, open_prepared(self.out).manifest)

    def _whole(self) -> dict[str, Any] | None:
        """The manifest, when the folder holds just this and no byte of it has changed."""
        if is_prepared(self.out):
            with suppress(DataError):
                manifest = open_prepared(self.out, verify=True).manifest
                if manifest["fingerprint"] == self.fingerprint:
                    return manifest
        return None

    def _publish(self) -> None:
        """Moves everything in place; interrupted anywhere, the next call moves the rest."""
        names = json.loads((self.partial / MANIFEST).read_bytes())["files"]
        (self.out / MANIFEST).unlink(missing_ok=True)
        for name in (*names, MANIFEST):
            with suppress(FileNotFoundError):  # moved before an interruption
                os.replace(self.partial / name, self.out / name)
        if "valid.nats" not in names:
            (self.out / "valid.nats").unlink(missing_ok=True)
        shutil.rmtree(self.partial)

    # the journal: which rule, how many parts are done, and the state of the writers

    def _journal(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.partial / JOURNAL).read_bytes()))
        except (OSError, ValueError):
            return {}

    def _write_journal(self, entry: dict[str, Any]) -> None:
        self._write_json(JOURNAL, {"fingerprint": self.fingerprint, **entry})

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        with naming(self.out), atomic_write(self.partial / name) as file:
            file.write(json.dumps(content, indent=1).encode())

    # the work

    def _write(self) -> None:
        """Everything into the partial folder, the manifest last."""
        splits = self._splits()
        tokenizer = self._tokenizer_for(splits[0])
        files, sides = self._encode(splits, tokenizer)
        if not all(facts["documents"] for facts in sides.values()):
            if not isinstance(splits[0], ByHash):
                raise self._no_text(missing="valid" if sides["train"]["documents"] else "train")
            (self.partial / TOKENIZER).unlink()  # learnt from other documents than it would be now
            self._write_journal({"tail": True})  # the hash put everything on one side
            self._write()
            return
        for source in self.inputs:
            source.must_be_unchanged()
        files[TOKENIZER] = _facts(tokenizer.to_bytes())
        if (nats := self.inputs[-1].nats) is not None:
            data = np.array(nats, NATS).tobytes()
            with atomic_write(self.partial / "valid.nats") as file:
                file.write(data)
            files["valid.nats"] = _facts(data)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "sources": [source.name for source in self.inputs],
            "inputs": [facts for source in self.inputs for facts in source.facts],
            "tokenizer_sha256": _sha256(tokenizer),
            "vocab_size": tokenizer.n_vocab,
            "end_token": end_token_of(tokenizer),
            "sides": sides,
            "files": files,
        }
        self._write_json(MANIFEST, manifest)

    def _no_text(self, *, missing: Side) -> DataError:
        source, held_out = self.inputs[0].name, self.inputs[1:]
        what = source
        if missing == "valid":
            what = held_out[0].name if held_out else f"the held-out part of {source}"
        return DataError(f"{what} holds no text (white space does not count): give more of it")

    def _splits(self) -> list[Split]:
        """The rule for the documents of each input."""
        if len(self.inputs) == 2:
            return [OneSide(side) for side in SIDES]
        ended = (p for part in self._parts(self.inputs[0]) for p in pieces_in(part) if p.closes)
        few = sum(1 for _ in islice(ended, FEW_DOCUMENTS)) < FEW_DOCUMENTS
        if not few and not self._journal().get("tail"):
            return [ByHash()]
        lengths = [0]
        for part in self._parts(self.inputs[0]):
            for piece in pieces_in(part):
                lengths[-1] += len(piece.text)
                if piece.closes:
                    lengths.append(0)
        return [tail_of(lengths[:-1])]

    def _parts(self, source: Input, split: Split | None = None) -> Iterator[Part]:
        """Its parts, as `split` needs them."""
        parts = source.parts(may_cut=self.tokenizer is None or is_cut_safe(self.tokenizer.pattern))
        return numbered(parts) if isinstance(split, Tail) else parts

    def _tokenizer_for(self, split: Split) -> Tokenizer:
        """The one given, the one learnt before an interruption, or one learnt now."""
        path = self.partial / TOKENIZER
        if self.tokenizer is None and path.exists():
            return Tokenizer.load(path)
        tokenizer = self.tokenizer or self._learn(split)
        with naming(self.out), atomic_write(path) as file:
            file.write(tokenizer.to_bytes())
        return tokenizer

    def _learn(self, split: Split) -> Tokenizer:
        """From all training text, or from parts evenly spread over it that make SAMPLE_BYTES."""
        texts = self._sample(split)
        first = next(texts, None)
        if first is None:
            raise self._no_text(missing="train")
        return Tokenizer.train(
            chain([first], texts), vocab_size=self.vocab_size, special_tokens=[END_OF_TEXT]
        )

    def _sample(self, split: Split) -> Iterator[str]:
        source, done = self.inputs[0], 0
        every = max(1, -(-source.size // SAMPLE_BYTES))
        for part in islice(self._parts(source, split), 0, None, every):
            for piece in pieces_in(part):
                yield from (text for side, text, _ in split.divide(piece) if side == "train")
            done = min(done + part.size * every, source.size)
            self.progress(f"learning {self.vocab_size} tokens", done, source.size)

    def _encode(self, splits: list[Split], tokenizer: Tokenizer) -> tuple[Facts, Facts]:
        """Both sides' files; returns what the manifest says of `files` and `sides`."""
        journal = self._journal()
        with ExitStack() as stack:
            writers, parts_done = self._writers(stack, journal)
            total, done, saved = sum(source.size for source in self.inputs), 0, 0
            number = 0

            def save() -> None:
                with naming(self.out):
                    states = {side: writer.sync() for side, writer in writers.items()}
                self._write_journal(
                    {"tail": journal.get("tail"), "parts": number, "writers": states}
                )

            for source, split in zip(self.inputs, splits, strict=True):
                parts = self._parts(source, split)
                for part in islice(parts, max(0, parts_done - number)):
                    number, done = number + 1, done + part.size
                saved = done
                encoded = encode_parts(parts, split, tokenizer, workers=self.workers)
                stack.enter_context(closing(encoded))
                for part, sides in encoded:
                    with naming(self.out):
                        for side, values in sides.items():
                            writers[side].append(*values)
                    number, done = number + 1, done + part.size
                    self.progress(f"encoding {source.name}", min(done, total), total)
                    if done - saved >= JOURNAL_BYTES:
                        saved = done
                        save()
            save()
            files = {name: facts for w in writers.values() for name, facts in w.files.items()}
            return files, {side: writer.facts for side, writer in writers.items()}

    def _writers(
        self, stack: ExitStack, journal: dict[str, Any]
    ) -> tuple[dict[Side, ShardWriter], int]:
        """Where the journal says they were, or at the start; and how many parts that is."""
        states = journal.get("writers", {})
        try:
            writers = {s: ShardWriter(self.partial, s, states.get(s)) for s in SIDES}
        except ValueError:  # the journal outlived what it tells of
            writers, journal = {s: ShardWriter(self.partial, s) for s in SIDES}, {}
        for writer in writers.values():
            stack.callback(writer.close)
        return writers, journal.get("parts", 0)


def _facts(content: bytes) -> dict[str, int]:
    return {"bytes": len(content), "crc32": zlib.crc32(content)}


def _sha256(tokenizer: Tokenizer) -> str:
    return hashlib.sha256(tokenizer.to_bytes()).hexdigest()
