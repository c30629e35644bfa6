"""Where arrays live: private memory on cache lines, or memory that forked workers share."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["ALIGNMENT", "private_zeros", "shared_zeros"]

Array = NDArray[Any]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


def private_zeros(size: int, dtype: DTypeLike) -> Array:
    """A vector of zeros whose first byte lies on a cache line."""
    n_bytes = size * np.dtype(dtype).itemsize
    raw = np.zeros(n_bytes + ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + n_bytes].view(dtype)


def shared_zeros(size: int, dtype: DTypeLike) -> Array:
    """A vector of zeros that processes forked later share with this one.

    Anonymous memory: it has no name to collide or to be left behind, and goes with its last view.
    """
    n_bytes = size * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, max(1, n_bytes)), dtype=dtype, count=size)
