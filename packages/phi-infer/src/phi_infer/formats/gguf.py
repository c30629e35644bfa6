"""GGUF, the container of llama.cpp: metadata, a table of tensors, their bytes on a boundary.
Written from its published description (github.com/ggml-org/ggml, docs/gguf.md), versions 2 and 3.

    "GGUF", uint32 version, uint64 tensors, uint64 entries of metadata
    text key, uint32 type, value                                           for each entry
    text name, uint32 dimensions, uint64 each, uint32 type, uint64 offset  for each tensor
    the tensors, each on a multiple of general.alignment (32 bytes)

A text is its length, uint64, and UTF-8; dimensions are listed the last first. Of the tensors'
types F32, F16, BF16 and Q8_0 are read, all but BF16 written.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from phi_infer.errors import FormatError
from phi_infer.formats import q8_0
from phi_infer.formats.mapped import Cursor, map_file
from phi_infer.formats.safetensors import bfloat16
from phi_model.files import atomic_write

__all__ = ["Blocks", "read_gguf", "write_gguf"]

Array = NDArray[Any]

MAGIC = b"GGUF"
ALIGNMENT = 32  # bytes, where the file says nothing else
MAX_DIMENSIONS = 4
F32, F16, Q8_0, BF16 = 0, 1, 8, 30  # ggml's types of tensors
ITEM_BYTES = {F32: 4, F16: 2, BF16: 2}
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
           12: "d"}  # fmt: skip
UINT32, FLOAT32, BOOL, TEXT, ARRAY = 4, 6, 7, 8, 9
MAX_DEPTH = 4  # arrays within arrays; models use 1


@dataclass(frozen=True)
class Blocks:
    """A matrix in Q8_0: its bytes and the shape that it had."""

    data: Array
    shape: tuple[int, ...]


def read_gguf(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    """Metadata and name -> tensor: views of the mapped file, float32 where they were packed.

    Raises OSError, or FormatError for a file that is not sound; allocates nothing that the file
    only claims.
    """
    source = Path(path)
    content = map_file(source)
    cursor = Cursor(content, source)
    if len(content) < 4 or bytes(cursor.bytes(4)) != MAGIC:
        raise FormatError(f"{source} does not begin with GGUF; is it a .gguf file?")
    version = cursor.number("I")
    if version not in (2, 3):
        raise FormatError(f"{source} is GGUF version {version}; 2 and 3 are read: convert it again")
    n_tensors = cursor.count("Q", each=24)
    n_entries = cursor.count("Q", each=13)
    metadata: dict[str, Any] = {}
    for _ in range(n_entries):
        key = cursor.text(width=8)
        if key in metadata:
            raise FormatError(f"{source}: its metadata has {key[:80]!r} twice; convert it again")
        metadata[key] = _value(source, cursor, int(cursor.number("I")))
    entries = [_entry(source, cursor) for _ in range(n_tensors)]
    return metadata, _tensors(source, cursor, content, metadata, entries)


def _value(source: Path, cursor: Cursor, kind: int, depth: int = 0) -> Any:
    if kind in NUMBERS:
        return cursor.number(NUMBERS[kind])
    if kind == TEXT:
        return cursor.text(width=8)
    if kind != ARRAY or depth == MAX_DEPTH:
        raise FormatError(f"{source}: a value of the unknown type {kind}; convert it again")
    inner = int(cursor.number("I"))
    if inner in NUMBERS:
        size = struct.calcsize(NUMBERS[inner])
        count = cursor.count("Q", each=size)
        return np.frombuffer(cursor.bytes(count * size), "<" + NUMBERS[inner])
    count = cursor.count("Q", each=8)
    return [_value(source, cursor, inner, depth + 1) for _ in range(count)]


def _entry(source: Path, cursor: Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """(name, shape, type, offset)."""
    name = cursor.text(width=8)
    n_dims = int(cursor.number("I"))
    if n_dims > MAX_DIMENSIONS:
        raise FormatError(f"{source}: tensor {name[:80]!r} has {n_dims} dimensions; 4 at most")
    shape = tuple(int(cursor.number("Q")) for _ in range(n_dims))[::-1]
    return name, shape, int(cursor.number("I")), int(cursor.number("Q"))


def _tensors(
    source: Path,
    cursor: Cursor,
    content: memoryview,
    metadata: Mapping[str, Any],
    entries: Sequence[tuple[str, tuple[int, ...], int, int]],
) -> dict[str, Array]:
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or alignment <= 0 or alignment % 8:
        raise FormatError(f"{source}: general.alignment is {alignment!r}; it is damaged")
    start = cursor.position + -cursor.position % alignment
    places: dict[str, tuple[int, int]] = {}
    for name, shape, kind, offset in entries:
        begin = start + offset
        end = begin + _bytes_of(source, name, shape, kind)
        if name in places or offset % alignment or end > len(content):
            raise FormatError(
                f"{source}: tensor {name[:80]!r} is cut short, misplaced or there twice; "
                "copy or convert it again"
            )
        places[name] = begin, end
    spans = sorted(places.values())
    for (_, end), (begin, _) in pairwise(spans):
        if begin < end:
            raise FormatError(f"{source}: its tensors overlap at byte {begin}; convert it again")
    return {
        name: _decode(np.frombuffer(content[slice(*places[name])], np.uint8), shape, kind)
        for name, shape, kind, _ in entries
    }


def _bytes_of(source: Path, name: str, shape: tuple[int, ...], kind: int) -> int:
    if kind in ITEM_BYTES:
        return prod(shape) * ITEM_BYTES[kind]
    if kind != Q8_0:
        raise FormatError(
            f"{source}: tensor {name[:80]!r} is of ggml's type {kind}; F32, F16, BF16 and Q8_0 "
            "are read"
        )
    if not shape or shape[-1] % q8_0.BLOCK:
        raise FormatError(f"{source}: tensor {name[:80]!r} has rows that are no blocks of 32")
    return prod(shape) // q8_0.BLOCK * q8_0.BLOCK_BYTES


def _decode(data: Array, shape: tuple[int, ...], kind: int) -> Array:
    if kind == Q8_0:
        return q8_0.dequantize(data, shape)
    if kind == BF16:
        return bfloat16(data.view("<u2")).reshape(shape)
    return data.view("<f4" if kind == F32 else "<f2").reshape(shape)


def write_gguf(
    path: str | os.PathLike[str], metadata: Mapping[str, Any], tensors: Mapping[str, Array | Blocks]
) -> None:
    """Writes a file whole or not at all.

    metadata: text, bool, int (uint32), float (float32) and lists of text or int (int32).
    tensors: float32, float16 or Blocks. Raises OSError.
    """
    head = [MAGIC, struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        head += [_text(key), _packed(value)]
    at = 0
    for name, tensor in tensors.items():
        kind, data = _stored(tensor)
        head += [_text(name), struct.pack("<I", len(tensor.shape))]
        head += [struct.pack("<Q", n) for n in reversed(tensor.shape)]
        head += [struct.pack("<IQ", kind, at)]
        at += data.nbytes + -data.nbytes % ALIGNMENT
    with atomic_write(path) as file:
        file.write(b"".join(head))
        for tensor in tensors.values():
            _align(file)
            file.write(_stored(tensor)[1].reshape(-1).view(np.uint8).data)
        _align(file)


def _align(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % ALIGNMENT))


def _stored(tensor: Array | Blocks) -> tuple[int, Array]:
    """(ggml's type, the array of its bytes)."""
    if isinstance(tensor, Blocks):
        return Q8_0, tensor.data
    return {"<f4": F32, "<f2": F16}[tensor.dtype.str], np.ascontiguousarray(tensor)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _packed(value: Any) -> bytes:
    """A value of metadata with its type in front."""
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", FLOAT32, value)
    if isinstance(value, str):
        return struct.pack("<I", TEXT) + _text(value)
    inner = TEXT if all(isinstance(item, str) for item in value) else 5
    items = [_text(item) if inner == TEXT else struct.pack("<i", item) for item in value]
    return struct.pack("<IIQ", ARRAY, inner, len(items)) + b"".join(items)
