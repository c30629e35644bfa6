"""Arrays whose first byte lies on a cache line: vector instructions that cross lines cost more."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["aligned_empty", "aligned_zeros"]

Array = NDArray[Any]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


def aligned_zeros(size: int, dtype: DTypeLike) -> Array:
    """A vector of zeros."""
    return _aligned(np.zeros(size * np.dtype(dtype).itemsize + ALIGNMENT, np.uint8), size, dtype)


def aligned_empty(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """An array of anything."""
    size = math.prod(shape)
    raw = np.empty(size * np.dtype(dtype).itemsize + ALIGNMENT, np.uint8)
    return _aligned(raw, size, dtype).reshape(shape)


def _aligned(raw: NDArray[np.uint8], size: int, dtype: DTypeLike) -> Array:
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size * np.dtype(dtype).itemsize].view(dtype)
