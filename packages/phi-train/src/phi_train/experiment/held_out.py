"""The data of an experiment: what it holds, told by a hash; the held-out text in three parts.

A document's part follows from its text alone, so it never moves: search, confirmation and test
stay apart whatever else is tried, on every machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from phi_model.files import atomic_write
from phi_train.config import TrainConfig
from phi_train.corpus import BUILTIN, has_two_sides, open_corpus, with_stories
from phi_train.datasets import DATASETS, dataset_file
from phi_train.documents import files_of
from phi_train.errors import ConfigError, DataError
from phi_train.experiment.canonical import digest
from phi_train.prepare import prepare
from phi_train.run_data import open_run_data
from phi_train.shards import is_prepared, open_prepared
from phi_train.tokens import TokenStream

__all__ = [
    "PARTS",
    "content_of",
    "expanded",
    "one_at_a_time",
    "part_of",
    "prepared_for",
    "stream_of",
]

PARTS = ("search", "confirmation", "test")
ALL = "all"
NAME = re.compile(r"\$\{(\w+)\}")


def part_of(document: str) -> str:
    """The part of the held-out text that a document belongs to: a third of all texts each.

    >>> part_of("Once upon a time there was a little bear.")
    'search'
    """
    number = hashlib.blake2b(document.encode(), digest_size=8, person=b"phi-parts").digest()
    return PARTS[int.from_bytes(number, "big") % len(PARTS)]


def expanded(source: str) -> str:
    """A source with ${NAME} taken from the environment; ConfigError where there is none."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise ConfigError(f"{source} needs the environment variable {name}: export {name}=PATH")
        return os.environ[name]

    return NAME.sub(value, source)


def content_of(source: str) -> str:
    """A hash of what a source or a file holds, whatever its name; DataError where it is not."""
    if source == BUILTIN:
        return BUILTIN
    if source in DATASETS:
        paths = [dataset_file(source, held_out=side) for side in (False, True)]
    elif Path(source).is_file():
        paths = [Path(source)]
    elif is_prepared(source):
        paths = [Path(source, name) for name in ("tokenizer.json", "train.tokens", "valid.tokens")]
    else:
        paths = files_of(source)
    stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return digest([_sha256(*stamp) for stamp in stamps])


@lru_cache(maxsize=4096)
def _sha256(path: str, _size: int, _time: int) -> str:
    """Of a file, read once as long as size and time stay."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prepared_for(config: TrainConfig, part: str, folder: Path) -> TrainConfig:
    """The config with its text as tokens, measured on `part` of the held-out text alone.

    The tokens are made once in `folder`, for all trials that share text and tokenizer. A run
    that begins with a checkpoint reads text, for that brings its own tokenizer.
    """
    config = with_stories(config)
    given = [config.data, config.valid, config.tokenizer]
    contents = [content_of(source) if source else "" for source in given]
    vocabulary = 0 if config.tokenizer else config.vocab_size
    key = digest([contents, config.stories, vocabulary, part])
    with one_at_a_time(folder / f"{key}.lock"):
        if part == ALL:
            data, valid = config.data, config.valid
            if config.init_from or (is_prepared(data) and not valid):
                return config
        else:
            data, valid = _sides(config, part, folder / f"text-{key}")
            if config.init_from:
                return replace(config, data=data, valid=valid)
            if is_prepared(data):
                tokenizer = config.tokenizer or str(Path(data, "tokenizer.json"))
                return replace(config, data=data, valid=valid, tokenizer=tokenizer)
        out = folder / f"tokens-{key}"
        if not _is_whole(out):
            prepare(
                data,
                out,
                valid=valid,
                stories=config.stories,
                tokenizer=config.tokenizer or None,
                vocab_size=config.vocab_size,
            )
    return replace(config, data=str(out), valid="", tokenizer="", stories=0)


def _is_whole(folder: Path) -> bool:
    try:
        open_prepared(folder)
    except DataError:
        return False
    return True


def _sides(config: TrainConfig, part: str, folder: Path) -> tuple[str, str]:
    """(text to train on, text to measure on), as sources; written once."""
    held, nats = folder / f"{part}.jsonl", folder / f"{part}.nats.json"
    both = bool(config.valid) or has_two_sides(config.data)
    train = Path(config.data) if both else folder / "train.jsonl"
    if not held.exists() or not (both or train.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        corpus = open_corpus(config.data, config.valid, n_stories=1)
        chosen = [i for i, text in enumerate(corpus.valid) if part_of(text) == part]
        if not chosen:
            raise DataError(
                f"{config.valid or config.data} has no held-out document for the part {part!r}: "
                "give more of it with valid"
            )
        if not both:
            _write_texts(train, corpus.train)
        if corpus.valid_nats is not None:
            with atomic_write(nats) as file:
                file.write(json.dumps([corpus.valid_nats[i] for i in chosen]).encode())
        _write_texts(held, [corpus.valid[i] for i in chosen])
    return (config.data if both else str(train)), str(held)


def _write_texts(path: Path, texts: Sequence[str]) -> None:
    with atomic_write(path) as file:
        for text in texts:
            file.write((json.dumps({"text": text}) + "\n").encode())


def stream_of(config: TrainConfig, tokenizer: bytes, part: str) -> TokenStream:
    """What a config that prepared_for() gave is measured on, with the source's own nats."""
    stream = open_run_data(config, tokenizer, lambda _: None).valid
    name = Path(config.data).name
    if name.startswith("tokens-"):
        texts = Path(config.data).with_name(name.replace("tokens-", "text-", 1))
        nats = texts / f"{part}.nats.json"
        if nats.exists():
            values = np.array(json.loads(nats.read_text(encoding="utf-8")))
            stream = replace(stream, source_nats=values)
    return stream


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """One process at a time, the others wait; the system lets go of it when a process ends."""
    try:
        import fcntl  # noqa: PLC0415 (not on Windows)
    except ImportError:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
