"""Token shift: what the token before was, less what this one is. docs/rwkv7.md, section 2."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["shift", "shift_backward"]

Array = NDArray[Any]


def shift(h: Array, before: Array, reset: Array | None, *, out: Array) -> None:
    """Writes out [B, T, C] for h [B, T, C]; before [B, C] comes in and goes on to the end.

    reset [B, T]: True where nothing came before.
    """
    np.subtract(h[:, :-1], h[:, 1:], out=out[:, 1:])
    np.subtract(before, h[:, 0], out=out[:, 0])
    if reset is not None:
        out[reset] = -h[reset]
    before[...] = h[:, -1]


def shift_backward(dshift: Array, reset: Array | None, *, dh: Array) -> None:
    """Adds to dh [B, T, C]; dshift [B, T, C] is used up. What came before the batch is given."""
    dh -= dshift
    if reset is not None:
        dshift[reset] = 0
    dh[:, :-1] += dshift[:, 1:]
