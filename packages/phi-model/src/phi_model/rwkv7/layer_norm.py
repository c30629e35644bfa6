"""LayerNorm (Ba et al. 2016, arXiv:1607.06450), token-major; also over each head by itself.

    normed = (x - mean) * rstd,    rstd = (mean of (x - mean)^2 + eps)^(-1/2)
    y = normed * gain + bias

Derived in docs/rwkv7.md, section 6.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["normalise", "normalise_backward", "sum_tokens"]

Array = NDArray[Any]


def normalise(x: Array, eps: float, *, normed: Array, rstd: Array) -> None:
    """Writes normed [..., C] and rstd [...] for x [..., C]; normed may be x itself."""
    mean = x @ np.full(x.shape[-1], 1 / x.shape[-1], x.dtype)
    np.subtract(x, mean[..., None], out=normed)
    np.vecdot(normed, normed, out=rstd)
    rstd /= x.shape[-1]
    rstd += eps
    np.sqrt(rstd, out=rstd)
    np.reciprocal(rstd, out=rstd)
    normed *= rstd[..., None]


def normalise_backward(dnormed: Array, normed: Array, rstd: Array, *, scratch: Array) -> None:
    """Turns dnormed [..., C] into the gradient of x, in place.

    dx = rstd * (dnormed - mean(dnormed) - normed * mean(dnormed * normed))
    """
    mean = dnormed @ np.full(dnormed.shape[-1], 1 / dnormed.shape[-1], dnormed.dtype)
    along = np.vecdot(dnormed, normed)
    along /= dnormed.shape[-1]
    np.multiply(normed, along[..., None], out=scratch)
    dnormed -= scratch
    dnormed -= mean[..., None]
    dnormed *= rstd[..., None]


def sum_tokens(x: Array, *, out: Array) -> None:
    """Writes the sum over all tokens [C] of x [B, T, C]; a product sums faster than a sum."""
    rows = x.reshape(-1, x.shape[-1])
    np.dot(np.ones(len(rows), x.dtype), rows, out=out)
