"""Muon (Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982): orthogonalised momentum.

    m <- mu m + (1 - mu) g,    u = (1 - mu) g + mu m  (nesterov; else m)
    p <- p - lr wd p - lr s orthogonal(u)

for the hidden matrices; AdamW for all else: embeddings, the head, gains, biases. s is 0.2
sqrt(max(rows, columns)) ("match_rms_adamw": updates as large as AdamW's, so that one learning rate
and one decay serve both) or sqrt(max(1, rows / columns)) ("original"). Memory: one float a
parameter beside value and gradient for the matrices, two for the rest.

>>> import numpy as np
>>> weights = {"embedding": np.zeros((9, 4)), "qkv": np.eye(4, 4)}
>>> optimizer = Muon(weights, learning_rate=0.01)
>>> optimizer.matrices
('qkv',)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_optim.adamw import adamw_update
from phi_optim.base import FlatOptimizer
from phi_optim.checks import check_finite_scale, check_range
from phi_optim.errors import HyperparameterError
from phi_optim.groups import Group, is_matrix, rules_of
from phi_optim.memory import aligned_zeros
from phi_optim.muon_plan import Matrix, Plan, find_matrices, plan_shares
from phi_optim.newton_schulz import NewtonSchulzScratch, orthogonalise
from phi_optim.segments import Allocator, DecayRule, block_views, flat_views, segments

__all__ = ["ADJUSTMENTS", "Muon", "is_hidden_matrix"]

Array = NDArray[Any]

ADJUSTMENTS = ("match_rms_adamw", "original")
OUTER = ("*embed*", "*head*", "*unembed*")  # names of matrices that are not hidden ones


def is_hidden_matrix(name: str, value: Array) -> bool:
    """A matrix that is neither an embedding nor a head, by its name."""
    return value.ndim == 2 and not any(fnmatchcase(name.lower(), p) for p in OUTER)


class Muon(FlatOptimizer):
    """Updates `parameters` in place; see FlatOptimizer for what every optimiser takes.

    hidden(name, array) says which matrices are orthogonalised; matrix_rate multiplies their
    learning rate. split: name pattern -> number of equal blocks of rows that are matrices of their
    own, such as {"*.qkv": 3}; one where no pattern matches. betas, eps: AdamW's, for the rest.
    Raises HyperparameterError for a value out of range.
    """

    name = "muon"

    def __init__(
        self,
        parameters: Mapping[str, Array],
        *,
        learning_rate: float = 2e-3,
        momentum: float = 0.95,
        nesterov: bool = True,
        adjust: str = "match_rms_adamw",
        matrix_rate: float = 1.0,
        newton_schulz_steps: int = 5,
        split: Mapping[str, int] | None = None,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        hidden: Callable[[str, Array], bool] = is_hidden_matrix,
        decay: DecayRule = is_matrix,
        groups: Sequence[Group] = (),
        allocate: Allocator = aligned_zeros,
    ) -> None:
        check_range("momentum", momentum, 0, 1)
        check_range("matrix_rate", matrix_rate, 0, np.inf)
        check_range("newton_schulz_steps", newton_schulz_steps, 1, 100)
        check_range("betas[0]", betas[0], 0, 1)
        check_range("betas[1]", betas[1], 0, 1)
        check_range("eps", eps, 0, np.inf)
        if adjust not in ADJUSTMENTS:
            raise HyperparameterError(f"adjust is {adjust!r}; there are {', '.join(ADJUSTMENTS)}")
        self.momentum, self.nesterov, self.adjust = momentum, nesterov, adjust
        self.matrix_rate, self.newton_schulz_steps = matrix_rate, newton_schulz_steps
        self.betas, self.eps = betas, eps
        super().__init__(
            parameters,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            decay=decay,
            groups=groups,
            allocate=allocate,
            slots=("mean",),
        )
        rules = rules_of(parameters, weight_decay, decay, groups)
        self.matrices = tuple(n for n, v in parameters.items() if v.ndim == 2 and hidden(n, v))
        self._matrices = find_matrices(parameters, self.matrices, rules, split or {})
        self._rest = segments(
            parameters, {n: rules[n] for n in parameters if n not in self.matrices}
        )
        self._slots["square"] = {
            f"{s.buffer}{s.start}": allocate(s.end - s.start, self._values[s.buffer].dtype)
            for s in self._rest
        }
        self._plans: dict[int, Plan] = {}
        self._matrix_scratches: dict[int, NewtonSchulzScratch] = {}

    def update(
        self,
        gradients: Mapping[str, Array],
        *,
        step: int,
        learning_rate: float,
        scale: float = 1.0,
        share: int = 0,
        shares: int = 1,
    ) -> None:
        """See FlatOptimizer.update. A worker takes whole matrices, and fills up with the rest."""
        check_finite_scale(scale)
        flat_gradients = flat_views(gradients)
        if shares not in self._plans:
            self._plans[shares] = plan_shares(
                self._matrices, self._rest, shares, self.newton_schulz_steps
            )
        matrices, pieces = self._plans[shares][share]
        for matrix in matrices:
            self._update_matrix(matrix, flat_gradients, learning_rate, scale, share)
        for number, start, end in pieces:
            self._update_rest(number, start, end, flat_gradients, step, learning_rate, scale, share)

    def _update_matrix(
        self,
        matrix: Matrix,
        gradients: Mapping[str, Array],
        rate: float,
        scale: float,
        share: int,
    ) -> None:
        s = matrix.segment
        g, m, p = (
            table[s.buffer][s.start : s.end].reshape(matrix.shape)
            for table in (gradients, self._slots["mean"], self._values)
        )
        scratch = self._matrix_scratches.setdefault(share, NewtonSchulzScratch())
        u = scratch.take(6, matrix.shape, p.dtype)
        np.multiply(m, self.momentum, out=m)
        np.multiply(g, (1 - self.momentum) * scale, out=u)
        np.add(m, u, out=m)
        if self.nesterov:
            step = scratch.take(0, matrix.shape, p.dtype)
            np.add(u, np.multiply(m, self.momentum, out=step), out=u)
        else:
            u[...] = m
        rate *= s.rule.rate * self.matrix_rate
        factor = -rate * self._adjustment(matrix)
        update = orthogonalise(u, scratch, factor=factor, steps=self.newton_schulz_steps)
        if s.rule.weight_decay and rate:
            np.multiply(p, 1 - rate * s.rule.weight_decay, out=p)
        np.add(p, update, out=p)

    def _adjustment(self, matrix: Matrix) -> float:
        rows, columns = matrix.shape
        if self.adjust == "original":
            return math.sqrt(max(1.0, rows / columns))
        return 0.2 * math.sqrt(max(rows, columns))

    def _update_rest(
        self,
        number: int,
        start: int,
        end: int,
        gradients: Mapping[str, Array],
        step: int,
        rate: float,
        scale: float,
        share: int,
    ) -> None:
        whole = self._rest[number]
        part = slice(whole.start + start, whole.start + end)
        g, p, m = (t[whole.buffer][part] for t in (gradients, self._values, self._slots["mean"]))
        v = self._slots["square"][f"{whole.buffer}{whole.start}"][start:end]
        rate *= whole.rule.rate
        keep = 1 - rate * whole.rule.weight_decay
        blocks = block_views((g, p, m, v), 0, p.size, self._scratch_of(share, p.dtype))
        adamw_update(blocks, step, rate, keep, scale, betas=self.betas, eps=self.eps)
