"""Hugging Face's safetensors: a length, a JSON header, the tensors' bytes. Written from its
published description (github.com/huggingface/safetensors, "Format").

    uint64    bytes of the header, little-endian
    JSON      {"__metadata__": {text: text}, name: {"dtype", "shape", "data_offsets"}, ...}
    bytes     the tensors without gaps, offsets counted from here

Reads F64, F32, F16, BF16 (as float32) and whole numbers. Refuses gaps and overlaps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.errors import FormatError
from phi_infer.formats.mapped import Cursor, map_file
from phi_model.files import atomic_write

__all__ = ["bfloat16", "looks_like_safetensors", "read_safetensors", "write_safetensors"]

Array = NDArray[Any]

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I8": "|i1", "U8": "|u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4",
    "I64": "<i8", "U64": "<u8",
}  # fmt: skip
WRITTEN = {"<f8": "F64", "<f4": "F32", "<f2": "F16", "|i1": "I8"}
MAX_HEADER = 100_000_000  # bytes: the format's own limit
ALIGNMENT = 64  # bytes: of the first tensor, by spaces after the JSON


def looks_like_safetensors(start: bytes, size: int) -> bool:
    """Whether a file of `size` bytes that begins like this may be one."""
    return len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """name -> tensor, views of the mapped file, and the file's metadata.

    Raises OSError, or FormatError for a file that is not sound; allocates nothing that the file
    only claims.
    """
    source = Path(path)
    cursor = Cursor(map_file(source), source)
    size = cursor.count("Q")
    if size > MAX_HEADER:
        raise FormatError(f"{source}: its header of {size} bytes is longer than the format allows")
    header = _parse(source, bytes(cursor.bytes(size)))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise FormatError(f"{source}: its __metadata__ is no table; convert it again")
    data = cursor.bytes(cursor.left)
    spans, tensors = [], {}
    for name, entry in header.items():
        begin, end, tensors[name] = _tensor(source, name, entry, data)
        spans.append((begin, end))
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            what = "overlap" if begin < at else "leave a gap"
            raise FormatError(f"{source}: its tensors {what} at byte {begin}; convert it again")
        at = end
    if at != len(data):
        raise FormatError(f"{source}: {len(data) - at} bytes follow after its end")
    return tensors, metadata


def _parse(source: Path, raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{source}: its header is damaged ({error or 'too deep'})") from None
    if not isinstance(header, dict):
        raise FormatError(f"{source}: its header is no table; is it a safetensors file?")
    return header


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _tensor(source: Path, name: str, entry: Any, data: memoryview) -> tuple[int, int, Array]:
    """(begin, end, the tensor)."""
    try:
        dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
        begin, end = entry["data_offsets"]
        whole = all(type(n) is int and n >= 0 for n in (begin, end, *shape))
        fits = whole and begin <= end <= len(data)
        if not fits or end - begin != prod(shape) * np.dtype(dtype).itemsize:
            raise ValueError("its place and its shape do not fit")
        value = np.frombuffer(data[begin:end], dtype).reshape(shape)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FormatError(
            f"{source}: tensor {name[:80]!r} makes no sense ({error}); convert it again"
        ) from None
    return begin, end, bfloat16(value) if entry["dtype"] == "BF16" else value


def bfloat16(bits: Array) -> Array:
    """float32 of the upper halves of its bits, uint16."""
    return (bits.astype("<u4") << np.uint32(16)).view("<f4")


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Array],
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a file whole or not at all. Raises OSError."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, value in tensors.items():
        header[name] = {
            "dtype": WRITTEN[value.dtype.str],
            "shape": list(value.shape),
            "data_offsets": [at, at + value.nbytes],
        }
        at += value.nbytes
    packed = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    packed += b" " * (-(8 + len(packed)) % ALIGNMENT)
    with atomic_write(path) as file:
        file.write(len(packed).to_bytes(8, "little") + packed)
        for value in tensors.values():
            file.write(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
