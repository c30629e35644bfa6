"""SwiGLU (Shazeer 2020, arXiv:2002.05202), gate and up fused in one matrix, feature-major.

    y = silu(gate) * up,    silu(g) = g * sigmoid(g),    sigmoid(g) = (1 + tanh(g / 2)) / 2

Works in blocks of channels that stay in cache. Derived in docs/gradients.md, section 6.
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


def swiglu(gate: Array, up: Array, *, y: Array) -> None:
    """Writes y [F, N] for gate and up [F, N]."""
    for rows in _rows(*gate.shape):
        g, out = gate[rows], y[rows]
        _sigmoid(g, out)
        out *= g
        out *= up[rows]


def _sigmoid(g: Array, out: Array) -> None:
    np.multiply(g, 0.5, out=out)
    np.tanh(out, out=out)
    out += 1
    out *= 0.5


def swiglu_backward(
    dy: Array, gate: Array, up: Array, *, y: Array, dgate: Array, dup: Array
) -> None:
    """Writes dgate and dup [F, N], and y [F, N] anew; dy [F, N] is used up.

    dup   = dy * silu(gate)
    dgate = dy * up * (s + silu(gate) * (1 - s)),    s = sigmoid(gate)
    """
    for rows in _rows(*gate.shape):
        s, silu, slope = y[rows], dup[rows], dgate[rows]
        _sigmoid(gate[rows], s)
        np.multiply(gate[rows], s, out=silu)
        np.subtract(1, s, out=slope)
        slope *= silu
        slope += s
        slope *= up[rows]
        slope *= dy[rows]
        np.multiply(silu, up[rows], out=s)
        silu *= dy[rows]
