"""Schedule-Free AdamW (Defazio et al. 2024, arXiv:2405.15682): averaging in place of a schedule.

    y = (1 - b1) z + b1 x                           gradients are taken here
    v <- b2 v + (1 - b2) g^2,    d = lr (g / (sqrt(v / (1 - b2^t)) + eps) + wd y)
    z <- z - d,    x <- (1 - c) x + c z             c = lr_max^2 / sum of lr_max^2 so far

x, the average, is what to evaluate and to save; lr wants a warm-up and then stays constant. The
parameters hold y, and x while eval() is in force. Memory: two floats a parameter beside value and
gradient, z and v / (1 - b2); a third, the y to come back to, from the first eval() on.

>>> import numpy as np
>>> weights = {"w": np.ones((2, 2))}
>>> optimizer = ScheduleFreeAdamW(weights, learning_rate=0.1, weight_decay=0.0)
>>> optimizer.step({"w": np.ones((2, 2))})
>>> optimizer.eval()
>>> weights["w"].round(3).tolist()
[[0.9, 0.9], [0.9, 0.9]]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_optim.base import FlatOptimizer
from phi_optim.checks import check_finite_scale, check_range
from phi_optim.errors import HyperparameterError, StateError
from phi_optim.groups import Group, is_matrix
from phi_optim.memory import aligned_zeros
from phi_optim.segments import Allocator, Block, DecayRule, Rule, scalars

__all__ = ["ScheduleFreeAdamW"]

Array = NDArray[Any]


class ScheduleFreeAdamW(FlatOptimizer):
    """Updates `parameters` in place; see FlatOptimizer for what every optimiser takes.

    warmup_steps: the rate rises linearly over these, on top of what learning_rate says. The
    parameters must hold the training view when a step is made: StateError while eval() is in
    force. Raises HyperparameterError for a value out of range.
    """

    name = "schedule-free"
    schedule = "constant"
    scratch_rows = 2

    def __init__(
        self,
        parameters: Mapping[str, Array],
        *,
        learning_rate: float = 2.5e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        warmup_steps: int = 0,
        decay: DecayRule = is_matrix,
        groups: Sequence[Group] = (),
        allocate: Allocator = aligned_zeros,
    ) -> None:
        check_range("betas[0]", betas[0], 0, 1)
        if betas[0] == 0:
            raise HyperparameterError("betas[0] is 0; it must be above 0: x is not in y otherwise")
        check_range("betas[1]", betas[1], 0, 1)
        check_range("eps", eps, 0, np.inf)
        check_range("warmup_steps", warmup_steps, 0, np.inf)
        self.betas, self.eps, self.warmup_steps = betas, eps, warmup_steps
        super().__init__(
            parameters,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            decay=decay,
            groups=groups,
            allocate=allocate,
            slots=("base", "square"),
        )
        # (largest rate, sum of its squares) after an even and after an odd number of updates:
        # workers read one row and all write the same numbers to the other
        self._rates = allocate(4, np.float64).reshape(2, 2)
        self._training: dict[str, Array] = {}  # copies of y; used while x is in view
        self._view = allocate(1, np.float64)  # 1 while x is; workers look at it too

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
        """See FlatOptimizer.update. Updates are made in order: each looks at the rates before."""
        self._must_train()
        check_finite_scale(scale)
        if self.warmup_steps:
            learning_rate *= min(1.0, step / self.warmup_steps)
        largest, total = self._rates[(step - 1) % 2].tolist()
        largest = max(largest, learning_rate)
        self._rates[step % 2] = largest, total + largest**2
        super().update(
            gradients,
            step=step,
            learning_rate=learning_rate,
            scale=scale,
            share=share,
            shares=shares,
        )

    def _update(
        self, rule: Rule, blocks: Sequence[Block], step: int, rate: float, scale: float
    ) -> None:
        b1, b2 = self.betas
        root = ((1 - b2) / (1 - b2**step)) ** 0.5  # sqrt(square) * root is the root mean square
        largest, total = self._rates[step % 2].tolist()
        c = largest**2 / total if total else 0.0
        pull = rate * rule.weight_decay
        factors = (scale, b2, self.eps / root, rate / root, pull, 1 - c, c, b1 * c + 1 - b1)
        by, b2s, eps, size, wd, stay, move, part = scalars(blocks[0][1].dtype, *factors)
        for gradient, y, z, v, s, t in blocks:
            if step == 1:
                z[...] = y
            g = gradient if scale == 1 else np.multiply(gradient, by, out=t)
            np.multiply(g, g, out=s)
            np.multiply(v, b2s, out=v)
            np.add(v, s, out=v)
            np.sqrt(v, out=s)
            np.add(s, eps, out=s)
            np.divide(g, s, out=s)
            np.multiply(s, size, out=s)
            if pull:
                np.multiply(y, wd, out=t)
                np.add(s, t, out=s)
            # y = (1 - b1) z + b1 x after both moves, without x
            np.multiply(y, stay, out=y)
            np.multiply(z, move, out=t)
            np.add(y, t, out=y)
            np.subtract(z, s, out=z)
            np.multiply(s, part, out=s)
            np.subtract(y, s, out=y)

    def step(
        self,
        gradients: Mapping[str, Array],
        *,
        learning_rate: float | None = None,
        scale: float = 1.0,
    ) -> None:
        """One update; see FlatOptimizer.step."""
        self._must_train()
        super().step(gradients, learning_rate=learning_rate, scale=scale)

    def eval(self) -> None:
        """The parameters become x; y is put aside. Nothing happens the second time."""
        if self._evaluating:
            return
        self._view[0] = 1
        for name, y in self._values.items():
            kept = self._training.setdefault(name, np.empty_like(y))
            kept[...] = y
            if self.steps:
                np.subtract(y, (y - self._slots["base"][name]) * (1 - 1 / self.betas[0]), out=y)

    def train(self) -> None:
        """The parameters become y again, to the last bit."""
        if self._evaluating:
            self._view[0] = 0
            for name, y in self._values.items():
                y[...] = self._training[name]

    def state(self) -> dict[str, Array]:
        """Everything a bit-exact resume needs, y as well: the parameters saved may be x."""
        training = self._training if self._evaluating else self._values
        arrays = super().state() | {"rates": self._rates}
        return arrays | {f"training/{name}": array for name, array in training.items()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Takes over what state() gave; the parameters then hold the training view."""
        super().load_state(state)
        self.train()

    @property
    def _evaluating(self) -> bool:
        return bool(self._view[0])

    def _must_train(self) -> None:
        if self._evaluating:
            raise StateError("the parameters hold the view to evaluate: call train() before a step")
