"""SwiGLU (Shazeer 2020, arXiv:2002.05202), gate and up fused in one matrix, feature-major.

    y = silu(gate) * up,    silu(g) = g * s,    s = sigmoid(g) = (1 + tanh(g / 2)) / 2

Forward leaves behind, in the place of gate and up, what backward multiplies with, so that
backward is one multiplication each. Works in blocks of channels that stay in cache. Derived in
docs/gradients.md, section 6.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["swiglu", "swiglu_backward", "swiglu_scratch"]

Array = NDArray[Any]

BLOCK_ELEMENTS = 64 * 1024  # 256 KiB of float32: a few such blocks fit in a core's own cache


def _blocks(n_hidden: int, n_tokens: int) -> list[slice]:
    step = max(1, BLOCK_ELEMENTS // n_tokens)
    return [slice(row, min(row + step, n_hidden)) for row in range(0, n_hidden, step)]


def swiglu_scratch(n_hidden: int, n_tokens: int) -> tuple[int, int, int]:
    """Shape of the scratch that swiglu needs: two blocks of channels."""
    return 2, _blocks(n_hidden, n_tokens)[0].stop, n_tokens


def swiglu(gate: Array, up: Array, *, y: Array, scratch: Array, keep: bool = True) -> None:
    """Writes y [F, N] for gate and up [F, N]; scratch is of shape swiglu_scratch(F, N).

    With `keep`, gate becomes dy/dgate = up * slope, where slope = d silu / d gate =
    s + silu * (1 - s), and up becomes dy/dup = silu. Without, both keep their values.
    """
    for rows in _blocks(*gate.shape):
        g, u = gate[rows], up[rows]
        s, silu = scratch[:, : len(g)]
        np.multiply(g, 0.5, out=s)
        np.tanh(s, out=s)
        s += 1
        s *= 0.5
        np.multiply(g, s, out=silu)
        np.multiply(silu, u, out=y[rows])
        if keep:
            slope = np.subtract(1, s, out=g)
            slope *= silu
            slope += s
            slope *= u
            np.copyto(u, silu)


def swiglu_backward(dy: Array, dgate: Array, dup: Array) -> None:
    """Turns what swiglu left in the place of gate and up [F, N] into their gradients.

    dgate = dy * dy/dgate,    dup = dy * dy/dup
    """
    dgate *= dy
    dup *= dy
