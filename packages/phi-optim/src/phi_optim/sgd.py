"""SGD with momentum (Polyak 1964) and Nesterov's look-ahead (Sutskever et al. 2013).

    m <- mu m + g,    p <- p - lr wd p - lr m            (nesterov: - lr (g + mu m))

The decay is decoupled (Loshchilov and Hutter 2019, arXiv:1711.05101): it never enters m. Memory:
one float a parameter beside value and gradient, none without momentum.

>>> import numpy as np
>>> weights = {"w": np.ones((2, 2))}
>>> SGD(weights, learning_rate=0.1, weight_decay=0.0).step({"w": np.ones((2, 2))})
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
from phi_optim.errors import HyperparameterError
from phi_optim.groups import Group, is_matrix
from phi_optim.memory import aligned_zeros
from phi_optim.segments import Allocator, Block, DecayRule, Rule, scalars

__all__ = ["SGD"]

Array = NDArray[Any]


class SGD(FlatOptimizer):
    """Updates `parameters` in place; see FlatOptimizer for what every optimiser takes.

    Raises HyperparameterError for a value out of range.
    """

    name = "sgd"

    def __init__(
        self,
        parameters: Mapping[str, Array],
        *,
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decay: DecayRule = is_matrix,
        groups: Sequence[Group] = (),
        allocate: Allocator = aligned_zeros,
    ) -> None:
        check_range("momentum", momentum, 0, 1)
        if nesterov and momentum == 0:
            raise HyperparameterError("nesterov looks ahead along the momentum, which is 0: set it")
        self.momentum, self.nesterov = momentum, nesterov
        super().__init__(
            parameters,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            decay=decay,
            groups=groups,
            allocate=allocate,
            slots=("velocity",) if momentum else (),
        )

    def _update(
        self,
        rule: Rule,
        blocks: Sequence[Block],
        step: int,  # noqa: ARG002 (nothing here depends on it)
        rate: float,
        scale: float,
    ) -> None:
        keep = 1 - rate * rule.weight_decay
        if not self.momentum:
            _plain(blocks, keep, rate * scale)
            return
        dtype = blocks[0][1].dtype
        mu, own, ahead, c, k = scalars(
            dtype, self.momentum, rate, rate * self.momentum, scale, keep
        )
        for gradient, p, m, s in blocks:
            g = gradient if scale == 1 else np.multiply(gradient, c, out=s)
            np.multiply(m, mu, out=m)
            np.add(m, g, out=m)
            if keep != 1:
                np.multiply(p, k, out=p)
            if self.nesterov:
                np.multiply(g, own, out=s)
                np.subtract(p, s, out=p)
            np.multiply(m, ahead if self.nesterov else own, out=s)
            np.subtract(p, s, out=p)


def _plain(blocks: Sequence[Block], keep: float, rate: float) -> None:
    """Gradient descent without memory."""
    r, k = scalars(blocks[0][1].dtype, rate, keep)
    for g, p, s in blocks:
        np.multiply(g, r, out=s)
        if keep != 1:
            np.multiply(p, k, out=p)
        np.subtract(p, s, out=p)
