"""(I - A)^-1 for many small strictly lower triangular A, by substitution and by blocks.

Blocks of 8 are inverted by forward substitution, one row at a time for all matrices together;
two inverted neighbours T1 and T2 then make one of twice the size, with T2 A21 T1 below its
diagonal. Unlike a sum of powers of A this loses no digits when the powers grow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["unit_lower_inverse"]

Array = NDArray[Any]

BASE = 8


def unit_lower_inverse(a: Array, *, out: Array) -> None:
    """Writes (I - a)^-1 for a [..., c, c], c a multiple of 8 that is a power of two."""
    c = a.shape[-1]
    out[...] = 0
    starts = range(0, c, BASE)
    blocks = np.stack([a[..., s : s + BASE, s : s + BASE] for s in starts])
    rows = np.ascontiguousarray(np.moveaxis(blocks, (-2, -1), (0, 1)))  # matrices innermost
    inverse = _substitute(rows.reshape(BASE, BASE, -1)).reshape(rows.shape)
    for j, s in enumerate(starts):
        out[..., s : s + BASE, s : s + BASE] = np.moveaxis(inverse[:, :, j], (0, 1), (-2, -1))
    size = BASE
    while size < c:
        for s in range(0, c, 2 * size):
            first, second = slice(s, s + size), slice(s + size, s + 2 * size)
            right = np.matmul(a[..., second, first], out[..., first, first])
            np.matmul(out[..., second, second], right, out=out[..., second, first])
        size *= 2


def _substitute(a: Array) -> Array:
    """(I - a)^-1 [b, b, n] row by row: T_t = e_t + sum_(s < t) a_ts T_s."""
    inverse = np.zeros_like(a)
    inverse[0, 0] = 1
    for t in range(1, len(a)):
        np.add.reduce(a[t, :t, None] * inverse[:t, :t], axis=0, out=inverse[t, :t])
        inverse[t, t] = 1
    return inverse
