"""How fast this machine multiplies matrices: the bar that products are held against."""

from __future__ import annotations

import time

import numpy as np
from threadpoolctl import threadpool_limits

__all__ = ["gemm_peak"]


def gemm_peak(*, size: int = 768, seconds: float = 0.5) -> float:
    """Operations a second of the fastest float32 product of two `size` by `size` matrices.

    Tried again and again for some seconds, on one BLAS thread, as a worker has it.
    """
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, size, size), dtype=np.float32)
    c = np.empty_like(a)
    quickest = float("inf")
    with threadpool_limits(1, "blas"):
        np.matmul(a, b, out=c)
        end = time.perf_counter() + seconds
        while quickest == float("inf") or time.perf_counter() < end:
            started = time.perf_counter()
            np.matmul(a, b, out=c)
            quickest = min(quickest, time.perf_counter() - started)
    return 2.0 * size**3 / quickest
