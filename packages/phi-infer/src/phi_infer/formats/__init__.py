"""Model files: the project's own and others', told apart by their content.

    phi           a .phi file
    safetensors   a folder in Hugging Face's Llama layout          huggingface, safetensors
    gguf          llama.cpp's file                                 gguf_llama, gguf, q8_0
    llama2c       llama2.c's model.bin with its tokenizer.bin      llama2c

>>> from phi_infer.formats import read, write
>>> write(read("best.phi"), "best.gguf", "gguf", dtype="int8")           # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from phi_infer.errors import FormatError
from phi_infer.formats.gguf_llama import read_gguf_llama, write_gguf_llama
from phi_infer.formats.huggingface import read_huggingface, write_huggingface
from phi_infer.formats.llama2c import looks_like_llama2c, read_llama2c, write_llama2c
from phi_infer.formats.model import DTYPES
from phi_infer.formats.phi import write_phi
from phi_infer.formats.safetensors import looks_like_safetensors
from phi_model import Checkpoint, load_checkpoint

__all__ = ["DTYPES", "FORMATS", "read", "write"]

WRITERS: dict[str, Callable[..., list[Path]]] = {
    "phi": write_phi,
    "safetensors": write_huggingface,
    "gguf": write_gguf_llama,
    "llama2c": write_llama2c,
}
FORMATS = tuple(WRITERS)


def read(path: str | os.PathLike[str], *, verify: bool = True) -> Checkpoint:
    """The model in a file or folder of any of FORMATS; its tensors stay mapped where they can.

    verify=False skips the checksums of a .phi, the only format that has any.
    Raises OSError, phi_model.CheckpointError or FormatError.
    """
    source = Path(path)
    if source.is_dir():
        return read_huggingface(source)
    with source.open("rb") as file:
        start = file.read(64)
    size = source.stat().st_size
    if start.startswith(b"GGUF") or source.suffix == ".gguf":
        return read_gguf_llama(source)
    if b"phi-checkpoint" in start:
        return load_checkpoint(source, verify=verify)
    if looks_like_safetensors(start, size) or source.suffix == ".safetensors":
        return read_huggingface(source.parent)
    if looks_like_llama2c(start, size) or source.suffix == ".bin":
        return read_llama2c(source)
    return load_checkpoint(source, verify=verify)


def write(
    checkpoint: Checkpoint, path: str | os.PathLike[str], to: str, *, dtype: str = "float32"
) -> list[Path]:
    """Writes a checkpoint's model in another format; returns the files written.

    to: one of FORMATS. dtype: one of DTYPES, how weights are stored.
    Raises FormatError for what the format cannot hold, OSError.
    """
    if to not in WRITERS:
        raise FormatError(f"the format {to!r} is not known; choose one of {', '.join(FORMATS)}")
    if dtype not in DTYPES:
        raise FormatError(f"the dtype {dtype!r} is not known; choose one of {', '.join(DTYPES)}")
    return WRITERS[to](checkpoint, path, dtype=dtype)
