"""From a SOURCE to documents: text files, JSON lines, parquet, folders of them. Knows no tokens.

A document is stripped of white space at both ends; empty ones are left out. A .txt file holds
documents separated by `<|endoftext|>`, or one document where that does not occur.

>>> from pathlib import Path
>>> _ = Path("/tmp/two.txt").write_text("One.<|endoftext|>Two.")
>>> list(documents("/tmp/two.txt"))
['One.', 'Two.']
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from phi_train.errors import DataError

__all__ = [
    "BYTE_ORDER_MARK",
    "END_OF_TEXT",
    "UNFINISHED",
    "decode_text",
    "documents",
    "files_of",
    "json_text",
    "parquet_texts",
]

END_OF_TEXT = "<|endoftext|>"
CHUNK = 1 << 20  # bytes read at once
ROWS = 1024  # of a parquet file, read at once
UNFINISHED = ".partial"  # what a folder of shards holds while it is made
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def documents(source: str | os.PathLike[str]) -> Iterator[str]:
    """Every document of `source`, in the order of the files' names.

    source: a .txt, .jsonl or .parquet file (any other ending is read as .txt), or a folder of
    such files. Raises DataError for a source that is missing, not UTF-8, or malformed.
    """
    for path in files_of(source):
        reader = _READERS.get(path.suffix.lower(), _read_text)
        for document in reader(path):
            stripped = document.strip()
            if stripped:
                yield stripped


def files_of(source: str | os.PathLike[str]) -> list[Path]:
    """The files behind a source, sorted by name."""
    path = Path(source)
    if path.is_dir():
        files = sorted(p for p in _inside(path) if p.suffix.lower() in _READERS and p.is_file())
        if not files and (path / UNFINISHED).is_dir():
            raise DataError(f"{path} is not finished: run the same phi-train data prepare again")
        if not files:
            raise DataError(f"{path} holds no {', '.join(_READERS)} file")
        return files
    if not path.exists():
        raise DataError(f"{path} does not exist: --data takes a text file or a folder of them")
    return [path]


def _inside(folder: Path) -> Iterator[Path]:
    """Every file in a folder and those below it, behind links too; not what phi-train itself has
    written there. Raises OSError for a folder that may not be read.
    """

    def told(error: OSError) -> None:
        raise error

    seen = set()
    for place, folders, names in os.walk(folder, onerror=told, followlinks=True):
        facts = os.stat(place)
        if (facts.st_dev, facts.st_ino) in seen:  # a link back to where we were
            folders.clear()
            continue
        seen.add((facts.st_dev, facts.st_ino))
        folders[:] = [name for name in folders if not _is_ours(Path(place, name))]
        yield from (Path(place, name) for name in names)


def _is_ours(folder: Path) -> bool:
    """A run, a folder of shards, an experiment or a model's improvement: no texts to learn."""
    if folder.name == UNFINISHED:
        return True
    marks = (("metrics.jsonl", "config.toml"), ("manifest.json", "tokenizer.json"),
             ("trials", "data"), ("examples.jsonl", "config.json"))  # fmt: skip
    return any(all((folder / name).exists() for name in mark) for mark in marks)


def _read_text(path: Path) -> Iterator[str]:
    """Pieces between end-of-text marks; holds one document and one chunk in memory."""
    mark = END_OF_TEXT.encode()
    rest, offset = b"", 0
    with path.open("rb") as file:
        if file.read(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK:
            offset = len(BYTE_ORDER_MARK)
        file.seek(offset)
        while chunk := file.read(max(CHUNK, len(rest))):  # growing: a book is not searched twice
            *pieces, rest = (rest + chunk).split(mark)
            for piece in pieces:
                yield decode_text(piece, path, offset)
                offset += len(piece) + len(mark)
    yield decode_text(rest, path, offset)


def decode_text(data: bytes, where: Path | str, offset: int) -> str:
    """`data`, which begins at byte `offset` of `where`, as text; DataError if it is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} is not UTF-8 text: byte {offset + error.start} is "
            f"0x{data[error.start]:02x}; convert it first, e.g. iconv -f latin1 -t utf-8"
        ) from error


def _read_jsonl(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield json_text(line, path, number)


def json_text(line: bytes, path: Path, number: int) -> str:
    """The document in line `number` of a .jsonl file; DataError if there is none."""
    where = f"{path}, line {number}"
    content = decode_text(line.removeprefix(BYTE_ORDER_MARK), where, 0)
    try:
        text = json.loads(content)["text"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f'{where}: each line must be a JSON object with a key "text"') from error
    if not isinstance(text, str):
        raise DataError(f'{where}: "text" must be a string')
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f'{where}: "text" holds half a character, {text[error.start]!r}') from error
    return text


def parquet_texts(path: Path) -> Iterator[str]:
    """The column "text" of a parquet file, a batch at a time; DataError if there is none."""
    try:
        from pyarrow import parquet  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise DataError(
            f"{path}: parquet files need an extra: pip install 'phi-train[parquet]'"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS, columns=["text"]):
                yield from (str(text) for text in batch.column(0).to_pylist() if text is not None)
    except Exception as error:  # pyarrow has its own tree
        raise DataError(f'{path} is not a parquet file with a column "text": {error}') from error


_READERS: dict[str, Callable[[Path], Iterator[str]]] = {
    ".txt": _read_text,
    ".jsonl": _read_jsonl,
    ".parquet": parquet_texts,
}
