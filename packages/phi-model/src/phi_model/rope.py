"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864), halves rotated, feature-major.

Channel i of a head's first half and channel i of its second half form a plane, which is turned
by the angle position * base^(-2i/D) / scaling. Turning is linear and orthogonal, so its backward
pass is turning back. Derived in docs/gradients.md, section 4.

Position interpolation (Chen et al. 2023, arXiv:2306.15595): a scaling of s squeezes s times the
trained context into the angles that training saw; a little further training then makes it work.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["RopeTables", "rope_angles", "rotate"]

Array = NDArray[Any]


def rope_angles(n_positions: int, head_size: int, base: float, scaling: float = 1.0) -> Array:
    """Angles [D/2, T] in radians, float64."""
    frequencies = base ** (-2.0 * np.arange(head_size // 2) / head_size)
    angles: Array = np.outer(frequencies, np.arange(n_positions) / scaling)
    return angles


class RopeTables:
    """Cosines and sines for queries and keys, with every constant of attention folded in.

    Scores are taken in units of log2 so that softmax is a bare exp2: queries carry
    log2(e) / sqrt(D). Backward, d(exp2 s) = ln(2) exp2(s) ds, and that ln(2) rides on the way
    back through the same rotation (for queries it cancels log2(e)).

    G is how many heads of queries share one of keys: 1 + G tables lie in the order of the rows.
    """

    def __init__(
        self,
        batch: int,
        n_positions: int,
        head_size: int,
        base: float,
        *,
        scaling: float = 1.0,
        n_group: int = 1,
        dtype: DTypeLike,
    ) -> None:
        angles = np.tile(rope_angles(n_positions, head_size, base, scaling), batch)
        scale = head_size**-0.5
        forward = np.array([scale / np.log(2.0)] * n_group + [1.0])
        backward = np.array([scale] * n_group + [np.log(2.0)])
        self.cos, self.sin = self._tables(angles, forward, dtype)
        self.back_cos, self.back_sin = self._tables(-angles, backward, dtype)

    @staticmethod
    def _tables(angles: Array, factors: Array, dtype: DTypeLike) -> tuple[Array, Array]:
        """cos [G (queries) + 1 (keys), 1 (head), 1 (half), D/2, N], sin with both halves: repeated
        for every row of the batch.
        """
        shaped = factors[:, None, None, None, None]
        cos = shaped * np.cos(angles)
        sin = shaped * np.stack([-np.sin(angles), np.sin(angles)])
        return cos.astype(dtype), sin.astype(dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the four tables."""
        return sum(table.nbytes for table in (self.cos, self.sin, self.back_cos, self.back_sin))


def rotate(qk: Array, cos: Array, sin: Array, *, scratch: Array) -> None:
    """Turns queries and keys [G (queries) + 1 (keys), K (heads), 2 (half), D/2, N] in place.

    y = x cos + (x with its halves exchanged) sin, where sin is negative for the first half.
    scratch is like qk. With tables of the negative angle this is its own backward pass.
    """
    np.multiply(qk[:, :, ::-1], sin, out=scratch)
    qk *= cos
    qk += scratch
