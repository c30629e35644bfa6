"""ggml's Q8_0: blocks of 32 weights, each a float16 scale and 32 signed bytes (34 bytes a block).

A weight is scale * byte, the scale is the block's largest magnitude / 127: an error of at most
half a scale, 1.06 bytes a weight.

>>> import numpy as np
>>> blocks = quantize(np.linspace(-1, 1, 32, dtype=np.float32).reshape(1, 32))
>>> bool(abs(dequantize(blocks, (1, 32))[0, 0] + 1) < 0.005)
True
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.errors import FormatError

__all__ = ["BLOCK", "BLOCK_BYTES", "dequantize", "quantize"]

Array = NDArray[Any]

BLOCK = 32  # weights
BLOCK_BYTES = 34
LAYOUT = np.dtype([("scale", "<f2"), ("weights", "i1", BLOCK)])


def quantize(values: Array) -> Array:
    """Bytes [rows, blocks * 34] of float32 [rows, blocks * 32]."""
    blocks = np.ascontiguousarray(values, np.float32).reshape(-1, BLOCK)
    scales = np.abs(blocks).max(axis=1) / np.float32(127)
    if not (scales < 65504).all():
        raise FormatError("a weight is too large for Q8_0, or not finite; use --dtype float32")
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
    packed = np.empty(len(blocks), LAYOUT)
    packed["scale"] = scales
    packed["weights"] = np.rint(blocks * inverse[:, None])
    return packed.view(np.uint8).reshape(len(values), -1)


def dequantize(data: Array, shape: tuple[int, ...]) -> Array:
    """float32 of `shape` from the bytes of its blocks."""
    packed = data.reshape(-1).view(LAYOUT)
    with np.errstate(invalid="ignore"):  # a damaged scale: not finite, as what generates will say
        values: Array = packed["weights"] * packed["scale"].astype(np.float32)[:, None]
    return values.reshape(shape)
