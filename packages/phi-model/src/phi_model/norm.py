"""RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467), feature-major.

    y = gain * x * rrms,    rrms = (mean over channels of x^2 + eps)^(-1/2)

Derived in docs/gradients.md, section 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["rmsnorm", "rmsnorm_backward"]

Array = NDArray[Any]


def rmsnorm(x: Array, gain: Array, eps: float, *, y: Array, rrms: Array) -> None:
    """Writes y [C, N] and rrms [N] for x [C, N] and gain [C]."""
    np.multiply(x, x, out=y)
    np.dot(np.full(x.shape[0], 1 / x.shape[0], x.dtype), y, out=rrms)  # the mean over channels
    rrms += eps
    np.sqrt(rrms, out=rrms)
    np.reciprocal(rrms, out=rrms)
    np.multiply(x, rrms, out=y)
    y *= gain[:, None]


def rmsnorm_backward(
    dy: Array, x: Array, gain: Array, rrms: Array, *, dx: Array, dgain: Array, scratch: Array
) -> None:
    """Adds to dx [C, N] and writes dgain [C]; dy [C, N] is used up.

    dgain = sum over tokens of dy * x * rrms
    dx   += rrms * gain * dy - x * rrms^3 / C * (sum over channels of gain * dy * x)
    """
    np.multiply(dy, x, out=scratch)
    np.dot(scratch, rrms, out=dgain)
    projection = np.dot(gain, scratch)
    projection *= rrms
    projection *= rrms
    projection /= -x.shape[0]
    np.multiply(x, projection, out=scratch)
    dy *= gain[:, None]
    dy += scratch
    dy *= rrms
    dx += dy
