"""Tokenizer files: one module for each format, and the functions that tell them apart."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from phi_tokenizer.errors import FormatError
from phi_tokenizer.files import atomic_write_bytes
from phi_tokenizer.formats.gpt2 import from_gpt2, to_gpt2
from phi_tokenizer.formats.hf import from_hf, to_hf
from phi_tokenizer.formats.llama2c import to_llama2c
from phi_tokenizer.formats.tiktoken import from_tiktoken, to_tiktoken
from phi_tokenizer.vocabulary import Vocabulary

__all__ = ["FORMATS", "Format", "parse_json", "read", "write"]

Format = Literal["hf", "gpt2", "tiktoken", "llama2c"]
FORMATS: tuple[Format, ...] = ("hf", "gpt2", "tiktoken", "llama2c")


def write(vocabulary: Vocabulary, path: str | os.PathLike[str], to: Format = "hf") -> list[Path]:
    """Write a vocabulary, atomically.

    Args:
        vocabulary: what to write.
        path: a file; for `gpt2` a folder, made if missing, for vocab.json and merges.txt.
        to: the format.

    Returns:
        The files written.

    Raises:
        FormatError: the format cannot hold this vocabulary.
        OSError: a file cannot be written.
    """
    target = Path(path)
    if to == "gpt2":
        vocab, merges = to_gpt2(vocabulary)
        target.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(target / "vocab.json", vocab)
        atomic_write_bytes(target / "merges.txt", merges)
        return [target / "vocab.json", target / "merges.txt"]
    writers = {"hf": to_hf, "tiktoken": to_tiktoken, "llama2c": to_llama2c}
    if to not in writers:
        raise FormatError(f"the format {to!r} is not known; choose one of {', '.join(FORMATS)}")
    atomic_write_bytes(target, writers[to](vocabulary))
    return [target]


def read(
    path: str | os.PathLike[str],
    *,
    special_tokens: Mapping[str, int] | Iterable[str] | None = None,
    pattern: str | None = None,
) -> Vocabulary:
    """Read a vocabulary; the format is told by the content.

    Args:
        path: a `tokenizer.json`, a `.tiktoken` file, a `vocab.json` or `merges.txt` (the other
            is taken from the same folder), or a folder that holds one of these.
        special_tokens: for `.tiktoken`: name -> id, or names that get the ids after the last.
        pattern: for files that hold none; GPT-2's if None.

    Raises:
        FormatError: the file is broken or of no known format; the message names it.
        OSError: it cannot be read.
    """
    source = Path(path)
    if source.is_dir():
        source = _in_folder(source)
    try:
        return _read(source, special_tokens, pattern)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None


def _in_folder(folder: Path) -> Path:
    for name in ("tokenizer.json", "vocab.json"):
        if (folder / name).is_file():
            return folder / name
    found = sorted(folder.glob("*.tiktoken"))
    if found:
        return found[0]
    raise FormatError(f"{folder}: the folder holds no tokenizer.json, vocab.json or .tiktoken file")


def _read(
    source: Path, special_tokens: Mapping[str, int] | Iterable[str] | None, pattern: str | None
) -> Vocabulary:
    data = source.read_bytes()
    if data.startswith(b"#version") or source.name == "merges.txt":
        vocab = parse_json((source.parent / "vocab.json").read_bytes(), "vocab.json")
        return from_gpt2(vocab, data, pattern=pattern or "gpt2")
    if not data.lstrip().startswith(b"{"):
        if not data.strip():
            raise FormatError("the file is empty")
        return from_tiktoken(data, special_tokens=special_tokens or (), pattern=pattern or "gpt2")
    document = parse_json(data, "tokenizer.json")
    if "model" in document and isinstance(document["model"], dict):
        if special_tokens is not None or pattern is not None:
            raise FormatError("a tokenizer.json holds its special tokens and pattern itself")
        return from_hf(document)
    merges = source.parent / "merges.txt"
    if not merges.is_file():
        raise FormatError("neither a tokenizer.json nor a vocab.json with its merges.txt")
    return from_gpt2(document, merges.read_bytes(), pattern=pattern or "gpt2")


def parse_json(data: bytes, name: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        FormatError: it is none.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not a {name}: {str(error) or 'nested too deeply'}") from None
    if not isinstance(document, dict):
        raise FormatError(f"not a {name}: it must be an object, not {type(document).__name__}")
    return document
