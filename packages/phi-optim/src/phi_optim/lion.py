"""Lion (Chen et al. 2023, arXiv:2302.06675): the sign of an interpolated momentum.

    u <- sign(b1 m + (1 - b1) g),    m <- b2 m + (1 - b2) g,    p <- p - lr wd p - lr u

Every element moves by lr, so lr wants to be 3 to 10 times smaller than AdamW's and wd as much
larger. Memory: one float a parameter beside value and gradient: m / (1 - b2), a plain decaying sum.

>>> import numpy as np
>>> weights = {"w": np.ones((2, 2))}
>>> Lion(weights, learning_rate=0.1, weight_decay=0.0).step({"w": np.full((2, 2), 7.0)})
>>> weights["w"].tolist()
[[0.9, 0.9], [0.9, 0.9]]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_optim.base import FlatOptimizer
from phi_optim.checks import check_range
from phi_optim.groups import Group, is_matrix
from phi_optim.memory import aligned_zeros
from phi_optim.segments import Allocator, Block, DecayRule, Rule, scalars

__all__ = ["Lion"]

Array = NDArray[Any]


class Lion(FlatOptimizer):
    """Updates `parameters` in place; see FlatOptimizer for what every optimiser takes.

    Raises HyperparameterError for a value out of range.
    """

    name = "lion"
    scratch_rows = 2

    def __init__(
        self,
        parameters: Mapping[str, Array],
        *,
        learning_rate: float = 3e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.5,
        decay: DecayRule = is_matrix,
        groups: Sequence[Group] = (),
        allocate: Allocator = aligned_zeros,
    ) -> None:
        check_range("betas[0]", betas[0], 0, 1)
        check_range("betas[1]", betas[1], 0, 1)
        self.betas = betas
        super().__init__(
            parameters,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            decay=decay,
            groups=groups,
            allocate=allocate,
            slots=("momentum",),
        )

    def _update(
        self,
        rule: Rule,
        blocks: Sequence[Block],
        step: int,  # noqa: ARG002 (nothing here depends on it)
        rate: float,
        scale: float,
    ) -> None:
        b1, b2 = self.betas
        keep = 1 - rate * rule.weight_decay
        share = b1 * (1 - b2) / (1 - b1)  # of the stored sum beside a whole gradient
        dtype = blocks[0][1].dtype
        w, b2s, c, r, k = scalars(dtype, share, b2, scale, rate, keep)
        lift, low = np.array(np.finfo(dtype).max), np.array(-r)
        with np.errstate(over="ignore"):  # lifting is meant to reach infinity
            for gradient, p, m, s, t in blocks:
                g = gradient if scale == 1 else np.multiply(gradient, c, out=t)
                np.multiply(m, w, out=s)
                np.add(s, g, out=s)
                # lr * sign(s) without numpy's slow sign: zeros stay zeros, all else is lifted
                # beyond lr and cut back to it
                np.multiply(s, lift, out=s)
                np.clip(s, low, r, out=s)
                if keep != 1:
                    np.multiply(p, k, out=p)
                np.subtract(p, s, out=p)
                np.multiply(m, b2s, out=m)
                np.add(m, g, out=m)
