"""AdamW (Kingma and Ba 2015, arXiv:1412.6980; Loshchilov and Hutter 2019, arXiv:1711.05101).

    m <- b1 m + (1 - b1) g,    v <- b2 v + (1 - b2) g^2
    p <- p - lr wd p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

One pass over cache-sized blocks; memory: two floats a parameter beside value and gradient. They
hold m / (1 - b1) and v / (1 - b2), plain decaying sums, which saves two multiplications each.

>>> import numpy as np
>>> weights = {"w": np.ones((2, 2))}
>>> AdamW(weights, learning_rate=0.1, weight_decay=0.0).step({"w": np.ones((2, 2))})
>>> weights["w"].round(3).tolist()
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

__all__ = ["AdamW", "adamw_update"]

Array = NDArray[Any]


class AdamW(FlatOptimizer):
    """Updates `parameters` in place; see FlatOptimizer for what every optimiser takes.

    Raises HyperparameterError for a value out of range. The defaults are those measured best for
    models of about a million parameters.
    """

    name = "adamw"

    def __init__(
        self,
        parameters: Mapping[str, Array],
        *,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        decay: DecayRule = is_matrix,
        groups: Sequence[Group] = (),
        allocate: Allocator = aligned_zeros,
    ) -> None:
        check_range("betas[0]", betas[0], 0, 1)
        check_range("betas[1]", betas[1], 0, 1)
        check_range("eps", eps, 0, np.inf)
        self.betas, self.eps = betas, eps
        super().__init__(
            parameters,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            decay=decay,
            groups=groups,
            allocate=allocate,
            slots=("mean", "square"),
        )

    def _update(
        self, rule: Rule, blocks: Sequence[Block], step: int, rate: float, scale: float
    ) -> None:
        keep = 1 - rate * rule.weight_decay
        adamw_update(blocks, step, rate, keep, scale, betas=self.betas, eps=self.eps)


def adamw_update(
    blocks: Sequence[Block],
    step: int,
    rate: float,
    keep: float,
    scale: float,
    *,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """Update number `step` of blocks (g, p, m, v, scratch), by scale * g; keep is 1 - lr wd."""
    b1, b2 = betas
    root = ((1 - b2) / (1 - b2**step)) ** 0.5  # sqrt(v) * root is the root mean square
    size = rate * (1 - b1) / (1 - b1**step) / root
    dtype = blocks[0][1].dtype
    a, b, c, e, r, k = scalars(dtype, b1, b2, scale, eps / root, size, keep)
    for gradient, p, m, v, s in blocks:
        g = gradient if scale == 1 else np.multiply(gradient, c, out=s)
        np.multiply(m, a, out=m)
        np.add(m, g, out=m)
        np.multiply(g, g, out=s)
        np.multiply(v, b, out=v)
        np.add(v, s, out=v)
        np.sqrt(v, out=s)
        np.add(s, e, out=s)
        np.divide(m, s, out=s)
        np.multiply(s, r, out=s)
        if keep != 1:
            np.multiply(p, k, out=p)
        np.subtract(p, s, out=p)
