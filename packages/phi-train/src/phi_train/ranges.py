"""A source cut into parts that can be read on their own, so that several processes share it.

A text file is cut at its end-of-text marks and JSON lines at their line ends, without reading
what lies between. A document much longer than a part is cut too, between two words where no token
can reach across (`may_cut`), so that memory stays the same however long it is. The documents are
those of `phi_train.documents.documents`, in the same order.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from phi_train.documents import (
    BYTE_ORDER_MARK,
    END_OF_TEXT,
    decode_text,
    files_of,
    json_text,
    parquet_texts,
)
from phi_train.errors import DataError
from phi_train.tokens import is_digest_held_out, split_hash

__all__ = ["PART_BYTES", "Part", "Piece", "is_cut_safe", "parts_of", "pieces_in"]

PART_BYTES = 1 << 18  # enough for its costs; with more, freed blocks of odd sizes pile up
LONG = 4  # parts: a document longer than this many is cut
MARK = END_OF_TEXT.encode()
SAFE_CUT = re.compile(rb"[!-~](?= [!-~])")  # between two words, before the space


@dataclass(frozen=True)
class Part:
    """Some whole documents, or one piece of a long one: bytes of a file, or texts."""

    path: Path
    begin: int = 0  # bytes
    end: int = 0
    texts: tuple[str, ...] | None = None  # instead of bytes, where a file has no lines (parquet)
    opens: bool = True  # a document begins here; False: one goes on
    closes: bool = True  # the last document ends here
    held_out: bool | None = None  # the side of a long document, which no single piece can tell
    first_document: int = 0  # of the source; set where documents are split by their number
    first_character: int = 0  # in its document; set likewise

    @property
    def size(self) -> int:
        """Bytes of text, as far as they can be told without reading it."""
        if self.texts is not None:
            return sum(map(len, self.texts))
        return self.end - self.begin


@dataclass(frozen=True)
class Piece:
    """A document, or a piece of a long one, without white space at the document's ends."""

    text: str
    closes: bool = True
    held_out: bool | None = None
    document: int = 0
    character: int = 0


def is_cut_safe(pattern: str) -> bool:
    """Whether a tokenizer with this split pattern gives the same ids for a text that is cut."""
    return pattern in ("gpt2", "cl100k")


def parts_of(
    source: str | os.PathLike[str], *, may_cut: bool, size: int = PART_BYTES
) -> Iterator[Part]:
    """The parts of a source, in order, each of about `size` bytes.

    Raises DataError as `documents` does, for what is found wrong while cutting.
    """
    for path in files_of(source):
        suffix = path.suffix.lower()
        if suffix == ".parquet":
            yield from _parquet_parts(path, size)
            continue
        with path.open("rb") as file:
            if suffix == ".jsonl":
                yield from _line_parts(file, path, size)
            else:
                yield from _text_parts(file, path, size, may_cut=may_cut)


def _parquet_parts(path: Path, size: int) -> Iterator[Part]:
    texts: list[str] = []
    characters = 0
    for text in parquet_texts(path):
        texts.append(text)
        characters += len(text)
        if characters >= size:
            yield Part(path, texts=tuple(texts))
            texts, characters = [], 0
    if texts:
        yield Part(path, texts=tuple(texts))


def _line_parts(file: BinaryIO, path: Path, size: int) -> Iterator[Part]:
    begin, total = 0, os.fstat(file.fileno()).st_size
    while begin < total:
        file.seek(begin + size - 1)
        file.readline()
        end = min(file.tell(), total)
        yield Part(path, begin, max(end, min(begin + size, total)))
        begin = max(end, min(begin + size, total))


def _text_parts(file: BinaryIO, path: Path, size: int, *, may_cut: bool) -> Iterator[Part]:
    total = os.fstat(file.fileno()).st_size
    begin = len(BYTE_ORDER_MARK) if file.read(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK else 0
    while begin < total:
        end = _find_mark(file, begin + size, min(begin + LONG * size, total), size)
        if end is None and begin + LONG * size >= total:
            end = total
        if end is None:  # the document at begin + size is long: what is before it comes first
            end = _last_mark(file, begin, begin + size + len(MARK))
        if end is None:
            document = _long_parts(file, path, begin, size, may_cut=may_cut)
            yield from document
            end = document[-1].end
        else:
            yield Part(path, begin, end)
        begin = end + len(MARK)


def _find_mark(file: BinaryIO, begin: int, end: int, block: int) -> int | None:
    """Where the first end-of-text mark at or after `begin` stands, if it begins before `end`."""
    while begin < end:
        file.seek(begin)
        found = file.read(min(block, end - begin) + len(MARK) - 1).find(MARK)
        if found >= 0:
            return begin + found
        begin += block
    return None


def _last_mark(file: BinaryIO, begin: int, end: int) -> int | None:
    file.seek(begin)
    found = file.read(end - begin).rfind(MARK)
    return None if found < 0 else begin + found


def _long_parts(file: BinaryIO, path: Path, begin: int, size: int, *, may_cut: bool) -> list[Part]:
    """The pieces of the document at `begin`, which is read once, for its side and its end."""
    digest = split_hash()
    parts: list[Part] = []
    rest = b""
    file.seek(begin)
    while block := file.read(max(size, len(rest))):
        searched = max(0, len(rest) - len(MARK) + 1)
        rest += block
        mark = rest.find(MARK, searched)
        if mark >= 0:
            rest = rest[:mark]
            break
        cut = _safe_cut(rest) if may_cut else 0
        if cut:
            text = decode_text(rest[:cut], path, begin)
            digest.update((text if parts else text.lstrip()).encode())
            parts.append(Part(path, begin, begin + cut, opens=not parts, closes=False))
            begin, rest = begin + cut, rest[cut:]
    end = begin + len(rest)
    if not parts:
        return [Part(path, begin, end)]
    digest.update(decode_text(rest, path, begin).rstrip().encode())
    parts.append(Part(path, begin, end, opens=False))
    held_out = is_digest_held_out(digest)
    return [replace(part, held_out=held_out) for part in parts]


def _safe_cut(data: bytes) -> int:
    """The last place but a mark's length where `data` may be cut; 0 when there is none."""
    window, end = 256, len(data) - len(MARK)
    while end > 0:
        begin = max(0, end - window)
        places = [match.end() for match in SAFE_CUT.finditer(data, begin, end)]
        if places:
            return places[-1]
        if begin == 0:
            break
        window *= 4
    return 0


def pieces_in(part: Part) -> Iterator[Piece]:
    """The documents of a part without empty ones, or the one piece of a long document."""
    if not (part.opens and part.closes):
        (text,) = _texts(part)
        text = text.lstrip() if part.opens else text
        text = text.rstrip() if part.closes else text
        yield Piece(text, part.closes, part.held_out, part.first_document, part.first_character)
        return
    number = part.first_document
    for text in _texts(part):
        stripped = text.strip()
        if stripped:
            yield Piece(stripped, document=number)
            number += 1


def _texts(part: Part) -> Iterator[str]:
    if part.texts is not None:
        yield from part.texts
        return
    with part.path.open("rb") as file:
        file.seek(part.begin)
        data = file.read(part.size)
    if len(data) < part.size:
        raise DataError(f"{part.path} became shorter while it was read: prepare it once more")
    if part.path.suffix.lower() == ".jsonl":
        yield from _lines(data, part)
        return
    offset = part.begin
    for piece in data.split(MARK):
        yield decode_text(piece, part.path, offset)
        offset += len(piece) + len(MARK)


def _lines(data: bytes, part: Part) -> Iterator[str]:
    for number, line in enumerate(io.BytesIO(data), start=1):
        if not line.strip():
            continue
        try:
            yield json_text(line, part.path, number)
        except DataError:  # now its number in the whole file is worth counting
            json_text(line, part.path, number + _lines_before(part))
            raise


def _lines_before(part: Part) -> int:
    with part.path.open("rb") as file:
        count = 0
        left = part.begin
        while left and (block := file.read(min(PART_BYTES, left))):
            count += block.count(b"\n")
            left -= len(block)
    return count
