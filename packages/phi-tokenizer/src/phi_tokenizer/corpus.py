"""Reading a corpus from files and folders, a few megabytes at a time.

A text file may hold many documents, separated by special tokens such as `<|endoftext|>`. A
`.jsonl` file holds one document a line, under the key `text`.
"""

import codecs
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from phi_tokenizer.errors import EncodingError, TrainingError
from phi_tokenizer.special import special_regex

__all__ = ["corpus_files", "read_parts"]

_BLOCK = 1 << 22
# A place where a text can be cut without changing its pieces (see pieces.py, `chunks`).
_SAFE_CUT = re.compile(r"[!-~](?=[ \n][!-~])")


def corpus_files(
    paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str],
) -> list[Path]:
    """The files, and the `.txt` and `.jsonl` files in folders, in order of their names.

    Raises:
        FileNotFoundError: a path does not exist.
        TrainingError: there is no file to read.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix in (".txt", ".jsonl"))
            inside = [p for p in inside if p.is_file()]
            if not inside:
                raise TrainingError(f"the folder {path} holds no .txt or .jsonl file")
            files += inside
        else:
            path.stat()
            files.append(path)
    if not files:
        raise TrainingError("there is no file to train on; name at least one")
    return files


def read_parts(
    path: Path,
    separators: Iterable[str],
    *,
    may_cut: bool,
    progress: Callable[[int], None] | None = None,
) -> Iterator[str]:
    """The documents of a file, cut at the separators, which are left out.

    Args:
        path: a text file, or `.jsonl`.
        separators: special tokens.
        may_cut: the pieces are those of the GPT-2 pattern: a long document may come in parts.
        progress: called with the number of bytes just read.

    Raises:
        EncodingError: the file is not UTF-8, or a line of a `.jsonl` is not such an object.
        OSError: the file cannot be read.
    """
    separator = special_regex(frozenset(separators))
    if path.suffix == ".jsonl":
        for text in _json_lines(path, progress):
            yield from separator.split(text)[::2]
        return
    rest = ""
    for block in _blocks(path, progress):
        *parts, rest = separator.split(rest + block)[::2]
        yield from parts
        if may_cut and len(rest) >= _BLOCK // 2 and (cut := _last_cut(rest)):
            yield rest[:cut]
            rest = rest[cut:]
    yield rest


def _last_cut(text: str) -> int:
    """The last place where the text may be cut, or 0."""
    # The end of the text may be the beginning of a separator: leave it out.
    window = 256
    while True:
        begin = max(0, len(text) - window)
        places = [match.end() for match in _SAFE_CUT.finditer(text, begin, len(text) - 128)]
        if places:
            return places[-1]
        if begin == 0:
            return 0
        window *= 4


def _blocks(path: Path, progress: Callable[[int], None] | None) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with open(path, "rb") as file:
        while True:
            block = file.read(_BLOCK)
            kept = len(decoder.getstate()[0])
            try:
                yield decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise EncodingError(
                    f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset "
                    f"{offset - kept + error.start}; convert it, for example with iconv"
                ) from None
            if not block:
                return
            offset += len(block)
            if progress is not None:
                progress(len(block))


def _json_lines(path: Path, progress: Callable[[int], None] | None) -> Iterator[str]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if progress is not None:
                progress(len(line))
            if not line.strip():
                continue
            try:
                text = json.loads(line)["text"]
            except (ValueError, KeyError, TypeError, RecursionError):
                text = None
            if not isinstance(text, str):
                raise EncodingError(f"{path}, line {number}: not an object with a string 'text'")
            yield text
