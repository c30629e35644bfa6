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

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_optim.checks import check_finite_scale, check_gradients_fit, check_range
from phi_optim.errors import StateError
from phi_optim.segments import (
    BLOCK,
    Allocator,
    DecayRule,
    Segment,
    blocks,
    flat_views,
    is_matrix,
    segments,
    share_of,
)

__all__ = ["AdamW"]

Array = NDArray[Any]


class AdamW:
    """Updates `parameters` in place.

    parameters: name -> float array; decay(name, array) says which of them weight_decay pulls
    towards 0 (matrices unless told otherwise). allocate(size, dtype) makes the moments, of zeros:
    in memory that forked workers share each of them can call update() for its share.
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
        allocate: Allocator = np.zeros,
    ) -> None:
        check_range("learning_rate", learning_rate, 0, np.inf)
        check_range("betas[0]", betas[0], 0, 1)
        check_range("betas[1]", betas[1], 0, 1)
        check_range("eps", eps, 0, np.inf)
        check_range("weight_decay", weight_decay, 0, np.inf)
        self.learning_rate, self.betas, self.eps = learning_rate, betas, eps
        self.weight_decay = weight_decay
        self.steps = 0
        self._values = flat_views(parameters)
        self._segments = segments(parameters, decay)
        self._mean = {k: allocate(v.size, v.dtype) for k, v in self._values.items()}
        self._square = {k: allocate(v.size, v.dtype) for k, v in self._values.items()}

    def step(
        self,
        gradients: Mapping[str, Array],
        *,
        learning_rate: float | None = None,
        scale: float = 1.0,
    ) -> None:
        """One update. `scale` multiplies the gradients, as clipping asks for, in the same pass.

        Raises, before anything changes: NotFiniteError when `scale` is not finite (pass what
        clip_scale returns, and a NaN anywhere in the gradients never reaches the moments);
        StateError when the gradients are not those of the parameters.
        """
        check_finite_scale(scale)
        rate = self.learning_rate if learning_rate is None else learning_rate
        check_range("learning_rate", rate, 0, np.inf)
        flat_gradients = flat_views(gradients)
        check_gradients_fit(flat_gradients, self._values)
        self.steps += 1
        self.update(gradients, step=self.steps, learning_rate=rate, scale=scale)

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
        """Update number `step` (1 is the first) of one worker's share of the parameters.

        For callers that run workers: all shares together are one step(), whose checks, and the
        counting in `steps`, are then the caller's.
        """
        flat_gradients = flat_views(gradients)
        scratch = np.empty(BLOCK, np.float64)
        for segment in share_of(self._segments, share, shares):
            gradient = flat_gradients[segment.buffer]
            self._update(segment, gradient, step, learning_rate, scale, scratch)

    def _update(
        self,
        segment: Segment,
        gradient: Array,
        step: int,
        rate: float,
        scale: float,
        scratch: Array,
    ) -> None:
        b1, b2 = self.betas
        root = ((1 - b2) / (1 - b2**step)) ** 0.5  # sqrt(square) * root is the root mean square
        step_size = rate * (1 - b1) / (1 - b1**step) / root
        eps = self.eps / root
        keep = 1 - rate * self.weight_decay if segment.decays else 1.0
        p, m, v = (t[segment.buffer] for t in (self._values, self._mean, self._square))
        for block in blocks(segment):
            g, mb, vb, pb = gradient[block], m[block], v[block], p[block]
            s = scratch.view(pb.dtype)[: pb.size]
            if scale != 1:
                g = np.multiply(g, scale, out=s)
            mb *= b1
            mb += g
            np.multiply(g, g, out=s)
            vb *= b2
            vb += s
            np.sqrt(vb, out=s)
            s += eps
            np.divide(mb, s, out=s)
            s *= step_size
            if keep != 1:
                pb *= keep
            pb -= s

    def state(self) -> dict[str, Array]:
        """Everything a bit-exact resume needs, as arrays (not copies)."""
        arrays = {"steps": np.array([self.steps], np.int64)}
        for label, table in (("mean", self._mean), ("square", self._square)):
            arrays |= {f"{label}/{name}": array for name, array in table.items()}
        return arrays

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Takes over what state() gave; raises StateError when it does not fit."""
        own = self.state()
        odd = own.keys() ^ state.keys() or {
            name
            for name, array in own.items()
            if (array.shape, array.dtype) != (state[name].shape, state[name].dtype)
        }
        if odd:
            raise StateError(
                f"this AdamW state was saved for other parameters: {min(odd)!r} does not fit"
            )
        for name, array in own.items():
            array[...] = state[name]
        self.steps = int(state["steps"][0])
