"""Gradients of several small batches as the gradient of the large one that they make up.

>>> import numpy as np
>>> total = GradientMean({"w": np.zeros(2)})
>>> total.add({"w": np.array([1.0, 2.0])}, weight=3)   # the mean over 3 tokens
>>> total.add({"w": np.array([5.0, 6.0])}, weight=1)
>>> total.take()["w"].tolist()
[2.0, 3.0]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_optim.checks import check_gradients_fit, check_range
from phi_optim.errors import StateError
from phi_optim.segments import blocks, flat_views

__all__ = ["GradientMean"]

Array = NDArray[Any]


class GradientMean:
    """The weighted mean of gradients, summed in place in `out`, arrays shaped like them.

    The gradient of a mean loss over n tokens has weight n; then the result is that of all tokens
    at once, to rounding, however they were divided.
    """

    def __init__(self, out: Mapping[str, Array]) -> None:
        self._out = out
        self._total = 0.0

    def add(self, gradients: Mapping[str, Array], *, weight: float = 1.0) -> None:
        """Adds one batch's gradients. Raises StateError when they do not fit the others,
        HyperparameterError for a weight that is negative or not finite.
        """
        check_range("weight", weight, 0, np.inf)
        sums, parts = flat_views(self._out), flat_views(gradients)
        check_gradients_fit(parts, sums)
        for name, total in sums.items():
            for block in blocks(0, total.size):
                if self._total == 0:
                    np.multiply(parts[name][block], weight, out=total[block])
                else:
                    total[block] += parts[name][block] * weight
        self._total += weight

    def take(self) -> Mapping[str, Array]:
        """The mean, in `out`; what is added next begins a new one. Raises StateError when nothing
        was added.
        """
        if self._total == 0:
            raise StateError("no gradient was added, or none of any weight: there is no mean")
        for vector in flat_views(self._out).values():
            np.multiply(vector, 1 / self._total, out=vector)
        self._total = 0.0
        return self._out
