"""SwiGLU (Shazeer 2020, arXiv:2002.05202), gate and up fused in one matrix, feature-major.

    y = silu(gate) * up,    silu(g) = g * s,    s = sigmoid(g) = (1 + tanh(g / 2)) / 2

Forward leaves behind what backward multiplies with, silu and its slope, so that backward needs no
exponential. Works in blocks of channels that stay in cache. Derived in docs/gradients.md,
section 6.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["swiglu", "swiglu_backward"]

Array = NDArray[Any]

BLOCK_ELEMENTS = 16 * 1024  # 64 KiB of float32: a few such blocks fit in a core's own cache


def _rows(n_hidden: int, n_tokens: int) -> list[slice]:
    step = max(1, BLOCK_ELEMENTS // n_tokens)
    return [slice(row, row + step) for row in range(0, n_hidden, step)]


def swiglu(gate: Array, up: Array, *, silu: Array, y: Array) -> None:
    """Writes silu and y [F, N] for gate and up [F, N]; gate becomes the slope of silu.

    slope = d silu / d gate = s + silu * (1 - s)
    """
    for rows in _rows(*gate.shape):
        g, si, s = gate[rows], silu[rows], y[rows]
        np.multiply(g, 0.5, out=s)
        np.tanh(s, out=s)
        s += 1
        s *= 0.5
        np.multiply(g, s, out=si)
        slope = np.subtract(1, s, out=g)
        slope *= si
        slope += s
        np.multiply(si, up[rows], out=s)


def swiglu_backward(dy: Array, slope: Array, up: Array, *, silu: Array, y: Array) -> None:
    """Turns slope into dgate and up into dup, in place, and writes y [F, N] anew.

    dgate = dy * up * slope,    dup = dy * silu
    """
    for rows in _rows(*slope.shape):
        d, u, dgate = dy[rows], up[rows], slope[rows]
        np.multiply(silu[rows], u, out=y[rows])
        dgate *= u
        dgate *= d
        np.multiply(silu[rows], d, out=u)
