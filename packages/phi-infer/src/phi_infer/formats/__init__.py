"""Model files: the project's own and others', told apart by their content.

    phi           a .phi file
    safetensors   a folder in Hugging Face's Llama layout          huggingface, safetensors
    gguf          llama.cpp's file                                 gguf_llama, gguf, q8_0
    llama2c       llama2.c's model.bin with its tokenizer.bin      llama2c

Each format's module is imported when it is first used.

>>> from phi_infer.formats import read, write
>>> write(read("best.phi"), "best.gguf", "gguf", dtype="int8")           # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from phi_infer.errors import FormatError
from phi_infer.formats.model import DTYPES
from phi_model import Checkpoint, load_checkpoint

__all__ = ["DTYPES", "FORMATS", "read", "write"]

MODULES = {  # each has write_ and, but for phi, read_ before its own name
    "phi": "phi",
    "safetensors": "huggingface",
    "gguf": "gguf_llama",
    "llama2c": "llama2c",
}
FORMATS = tuple(MODULES)


def read(path: str | os.PathLike[str], *, verify: bool = True) -> Checkpoint:
    """The model in a file or folder of any of FORMATS; its tensors stay mapped where they can.

    verify=False skips the checksums of a .phi, the only format that has any.
    Raises OSError, phi_model.CheckpointError or FormatError.
    """
    source = Path(path)
    if source.is_dir():
        return _reader("safetensors")(source)
    with source.open("rb") as file:
        start = file.read(64)
    size = source.stat().st_size
    if start.startswith(b"GGUF") or source.suffix == ".gguf":
        return _reader("gguf")(source)
    if b"phi-checkpoint" in start:
        return load_checkpoint(source, verify=verify)
    if _looks_like("safetensors", start, size) or source.suffix == ".safetensors":
        if source.name != "model.safetensors":
            raise FormatError(
                f"{source}: its name must be model.safetensors, in a folder of its own"
            )
        return _reader("safetensors")(source.parent)
    if _looks_like("llama2c", start, size) or source.suffix == ".bin":
        return _reader("llama2c")(source)
    return load_checkpoint(source, verify=verify)


def write(
    checkpoint: Checkpoint, path: str | os.PathLike[str], to: str, *, dtype: str = "float32"
) -> list[Path]:
    """Writes a checkpoint's model in another format; returns the files written.

    to: one of FORMATS. dtype: one of DTYPES, how weights are stored.
    Raises FormatError for what the format cannot hold, OSError.
    """
    if to not in MODULES:
        raise FormatError(f"the format {to!r} is not known; choose one of {', '.join(FORMATS)}")
    if dtype not in DTYPES:
        raise FormatError(f"the dtype {dtype!r} is not known; choose one of {', '.join(DTYPES)}")
    written: list[Path] = _function(MODULES[to], "write")(checkpoint, path, dtype=dtype)
    return written


def _function(module: str, verb: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(
        import_module(f"phi_infer.formats.{module}"), f"{verb}_{module}"
    )
    return function


def _reader(name: str) -> Callable[[Path], Checkpoint]:
    return _function(MODULES[name], "read")


def _looks_like(module: str, start: bytes, size: int) -> bool:
    return bool(_function(module, "looks_like")(start, size))
