"""The .phi file: a msgpack stream that can be memory-mapped. Nothing in it is ever executed.

    map    header: format, checksum, version, config, step, tokenizer, metadata, tensors
    bin    padding: zeros, so that the next payload starts on a 64-byte boundary   } for each
    bin    the tensor's bytes, little-endian, C order                              } tensor

`checksum` is the CRC-32 of the packed header with that field zeroed; each entry of `tensors` is
{name, dtype, shape, crc32}. Model parameters are the tensors whose name starts with "model/"; one
in int8 has a tensor "scale/" + its name, a factor for each row.
docs/checkpoint-format.md has the details.

>>> from phi_model import GPT, ModelConfig, load_checkpoint, save_checkpoint
>>> save_checkpoint("small.phi", GPT(ModelConfig.preset("gpt-1k")), step=7)
>>> load_checkpoint("small.phi").step
7
"""

from __future__ import annotations

import mmap
import operator
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import msgpack
import numpy as np
from numpy.typing import DTypeLike, NDArray

from phi_model.build import build_model, parameter_shapes
from phi_model.config import ModelConfig
from phi_model.errors import CheckpointError, ConfigError
from phi_model.files import atomic_write
from phi_model.language_model import LanguageModel
from phi_model.memory import ALIGNMENT

__all__ = ["FORMAT_VERSION", "Checkpoint", "load_checkpoint", "save_checkpoint"]

Array = NDArray[Any]

FORMAT = "phi-checkpoint"
FORMAT_VERSION = 1
MODEL, SCALE = "model/", "scale/"
DTYPES = ("<f2", "<f4", "<f8", "|i1", "|u1", "<i4", "<u2", "<u4", "<i8", "<u8")
NO_CHECKSUM = b"\0\0\0\0"
FIRST_READ = 256 * 1024  # bytes: nearly every header fits
MAX_HEADER = 256 * 1024 * 1024  # bytes; tokenizers are the largest part and a few MB at most
BIN_HEADERS = {0xC4: 1, 0xC5: 2, 0xC6: 4}  # msgpack's bin 8, 16 and 32: bytes of the length


@dataclass
class Checkpoint:
    """What a .phi file holds. `tensors` are read-only views of the file, mapped, not read."""

    path: Path
    config: ModelConfig
    step: int
    tokenizer: bytes | None  # the bytes of a tokenizer.json
    metadata: dict[str, Any]
    tensors: dict[str, Array] = field(repr=False)

    @property
    def parameters(self) -> dict[str, Array]:
        """name -> the model's parameter: a view of the file, or float32 where it holds int8."""
        return {
            name.removeprefix(MODEL): self._restored(name, tensor)
            for name, tensor in self.tensors.items()
            if name.startswith(MODEL)
        }

    def _restored(self, name: str, tensor: Array) -> Array:
        scale = self.tensors.get(SCALE + name.removeprefix(MODEL))
        if tensor.dtype != np.int8 or scale is None:
            return tensor
        return tensor * scale[:, None]

    @cached_property
    def model(self) -> LanguageModel:
        """The model in float32, built at the first use."""
        return self.build()

    def build(self, *, dtype: DTypeLike = np.float32) -> LanguageModel:
        """A new model with these parameters in `dtype`."""
        model = build_model(self.config, dtype=dtype)
        model.parameters.assign(self.parameters)
        return model


def save_checkpoint(
    path: str | os.PathLike[str],
    model: LanguageModel,
    *,
    step: int = 0,
    tokenizer: bytes | None = None,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Array] | None = None,
) -> None:
    """Writes the model, and whatever training needs beside it, whole or not at all.

    tokenizer: the bytes of a tokenizer.json. metadata: plain values (numbers, strings, lists,
    maps). tensors: further arrays, e.g. an optimiser's state. Equal input gives equal bytes.
    Raises OSError when the file cannot be written, TypeError for values that a file cannot hold.
    """
    named = {MODEL + name: value for name, value in model.parameters.items()}
    for name, value in (tensors or {}).items():
        if name in named:
            raise ValueError(f"tensor {name} is one of the model's own; choose another name")
        named[name] = value
    arrays = {name: _portable(name, value) for name, value in named.items()}
    header = {
        "format": FORMAT,
        "checksum": NO_CHECKSUM,
        "version": FORMAT_VERSION,
        "config": model.config.to_dict(),
        "step": operator.index(step),
        "tokenizer": tokenizer,
        "metadata": _plain(dict(metadata or {})),
        "tensors": [
            {
                "name": name,
                "dtype": array.dtype.str,
                "shape": list(array.shape),
                "crc32": zlib.crc32(_bytes_of(array)),
            }
            for name, array in arrays.items()
        ],
    }
    packed = msgpack.packb(header)
    checksum = zlib.crc32(packed).to_bytes(4, "big")
    with atomic_write(path) as file:
        file.write(packed.replace(_checksum_field(NO_CHECKSUM), _checksum_field(checksum), 1))
        for array in arrays.values():
            _write_aligned(file, array)


def _plain(metadata: dict[str, Any]) -> dict[str, Any]:
    """`metadata`, if a reader will get back just that."""
    try:
        if msgpack.unpackb(msgpack.packb(metadata)) == metadata:
            return metadata
    except (TypeError, ValueError, UnicodeEncodeError) as error:
        raise TypeError(f"metadata must be plain values, keys strings: {error}") from error
    raise TypeError(f"metadata would not come back as it is: {metadata!r}")


def _checksum_field(checksum: bytes) -> bytes:
    return bytes(msgpack.packb("checksum") + msgpack.packb(checksum))


def _portable(name: str, value: Array) -> Array:
    array = np.asarray(value, order="C")
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if array.dtype.str not in DTYPES:
        raise TypeError(f"{name} is {array.dtype}; a checkpoint holds {', '.join(DTYPES)}")
    return array


def _bytes_of(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _write_aligned(file: BinaryIO, array: Array) -> None:
    head = b"\xc6" + array.nbytes.to_bytes(4, "big")  # always bin 32: one rule, no cases
    room = -(file.tell() + 2 + len(head)) % ALIGNMENT  # 2: the padding entry's own header
    file.write(msgpack.packb(bytes(room)))
    file.write(head)
    file.write(_bytes_of(array))


def load_checkpoint(path: str | os.PathLike[str], *, verify: bool = True) -> Checkpoint:
    """Opens a .phi file; its tensors stay in the file until they are used.

    verify=False skips the tensors' checksums (never the header's), so that a large file opens in
    milliseconds. Raises FileNotFoundError, or CheckpointError when the file is not a sound
    checkpoint; allocates no more than the file's own size.
    """
    source = Path(path)
    with source.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise CheckpointError(f"{source} is empty: not a checkpoint")
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        header, end = _read_header(content)
        tensors = dict(_read_tensors(content, end, header["tensors"], verify=verify))
        checkpoint = Checkpoint(
            path=source,
            config=ModelConfig.from_dict(header["config"]),
            step=_expect(header["step"], int, "step"),
            tokenizer=_expect(header["tokenizer"], (bytes, type(None)), "tokenizer"),
            metadata=_expect(header["metadata"], dict, "metadata"),
            tensors=tensors,
        )
        _check_parameters(checkpoint)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{source} is not a sound checkpoint: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{source} is not a sound checkpoint: its header makes no sense ({error})"
        ) from error
    return checkpoint


def _expect(value: Any, kind: Any, name: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise CheckpointError(f"its {name} is a {type(value).__name__}")
    return value


def _read_header(content: memoryview) -> tuple[dict[str, Any], int]:
    """The header map and the offset of its end."""
    start = bytes(content[:64])
    if FORMAT.encode() not in start:
        raise CheckpointError("it does not begin with a phi header; is it a .phi file?")
    header, end = _unpack_first(content)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError("it does not begin with a phi header; is it a .phi file?")
    if header.get("version") != FORMAT_VERSION:
        raise CheckpointError(
            f"it is of format version {header.get('version')!r}; this phi-model reads up to "
            f"{FORMAT_VERSION}: install a newer one"
        )
    field_now = _checksum_field(_expect(header.get("checksum"), bytes, "checksum"))
    raw = bytes(content[:end]).replace(field_now, _checksum_field(NO_CHECKSUM), 1)
    if zlib.crc32(raw).to_bytes(4, "big") != header["checksum"]:
        raise CheckpointError("its header is damaged; use an older checkpoint, or copy it again")
    return header, end


def _unpack_first(content: memoryview) -> tuple[Any, int]:
    """The first object and the offset of its end; reads no more of a large file than it must."""
    size = FIRST_READ
    while True:
        part = content[: min(size, MAX_HEADER)]
        unpacker = msgpack.Unpacker(max_buffer_size=len(part))
        unpacker.feed(part)
        try:
            return unpacker.unpack(), unpacker.tell()
        except Exception as error:  # whatever msgpack raises on damaged input
            if not isinstance(error, msgpack.OutOfData) or len(part) in (len(content), MAX_HEADER):
                raise CheckpointError(
                    "its header is cut short or damaged; use an older checkpoint, or copy it again"
                ) from error
        size *= 4


def _read_tensors(
    content: memoryview, at: int, entries: list[dict[str, Any]], *, verify: bool
) -> Iterator[tuple[str, Array]]:
    for entry in entries:
        name, dtype, shape = entry["name"], entry["dtype"], tuple(entry["shape"])
        if dtype not in DTYPES or any(not isinstance(n, int) or n < 0 for n in shape):
            raise CheckpointError(f"tensor {name} has dtype {dtype!r} and shape {shape}")
        padding, at = _read_bin(content, at)
        payload, at = _read_bin(content, at)
        if len(payload) != prod(shape) * np.dtype(dtype).itemsize or any(padding):
            raise CheckpointError(f"tensor {name} is damaged: its size or padding is wrong")
        if verify and zlib.crc32(payload) != entry["crc32"]:
            raise CheckpointError(
                f"tensor {name} is damaged (checksum); use an older checkpoint, or copy it again"
            )
        yield name, np.frombuffer(payload, dtype=dtype).reshape(shape)
    if at != len(content):
        raise CheckpointError(f"{len(content) - at} bytes follow after its end")


def _read_bin(content: memoryview, at: int) -> tuple[memoryview, int]:
    """One msgpack bin object at offset `at`, and the offset after it; no copy."""
    width = BIN_HEADERS.get(content[at]) if at < len(content) else 0
    if width is None:
        raise CheckpointError(f"there is no tensor at byte {at}")
    start = at + 1 + width
    end = start + int.from_bytes(content[at + 1 : start], "big")
    if not width or start > len(content) or end > len(content):
        raise CheckpointError("it is cut short; use an older checkpoint, or copy it again")
    return content[start:end], end


def _check_parameters(checkpoint: Checkpoint) -> None:
    stored = {
        name.removeprefix(MODEL): tensor
        for name, tensor in checkpoint.tensors.items()
        if name.startswith(MODEL)
    }
    found = {name: tensor.shape for name, tensor in stored.items()}
    if checkpoint.config.n_layer > len(found):
        raise CheckpointError("it has fewer tensors than its config has layers")
    wanted = parameter_shapes(checkpoint.config)
    if found != wanted:
        odd = sorted({name for name, _ in found.items() ^ wanted.items()})
        raise CheckpointError(f"its tensors do not fit its config: {', '.join(odd[:3])}")
    for name, tensor in stored.items():
        if tensor.dtype.kind == "f":
            continue
        scale = checkpoint.tensors.get(SCALE + name)
        fits = scale is not None and scale.dtype == np.float32 and scale.shape == tensor.shape[:1]
        if tensor.dtype != np.int8 or tensor.ndim != 2 or not fits:
            raise CheckpointError(f"parameter {name} is {tensor.dtype} without scales of its rows")
