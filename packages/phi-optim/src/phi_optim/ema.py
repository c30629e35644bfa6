"""An exponential moving average of the weights (Polyak and Juditsky 1992), to evaluate and save.

    a <- a + (1 - d) / (1 - d^t) (p - a)

With bias correction (as written) it is the weighted mean of all weights seen, and equals the
parameters after the first update; without, it starts at the parameters and moves by 1 - d. Memory:
one float a parameter.

>>> import numpy as np
>>> weights = {"w": np.zeros(2)}
>>> average = Ema(weights, decay=0.5)
>>> for value in (1.0, 4.0):
...     weights["w"][:] = value
...     average.step()
>>> with average.swapped():
...     weights["w"].tolist()
[3.0, 3.0]
>>> weights["w"].tolist()
[4.0, 4.0]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_optim.checks import check_range
from phi_optim.errors import StateError
from phi_optim.memory import aligned_empty, aligned_zeros
from phi_optim.segments import (
    BLOCK,
    Allocator,
    Rule,
    blocks,
    flat_views,
    load_arrays,
    segments,
    share_of,
)

__all__ = ["Ema"]

Array = NDArray[Any]


class Ema:
    """Follows `parameters`; call step() after each update of theirs.

    allocate(size, dtype) makes the average, of zeros: in memory that forked workers share each of
    them can call update() for its share. Raises HyperparameterError for a decay outside 0..1.
    """

    def __init__(
        self,
        parameters: Mapping[str, Array],
        *,
        decay: float = 0.999,
        bias_correction: bool = True,
        allocate: Allocator = aligned_zeros,
    ) -> None:
        check_range("decay", decay, 0, 1)
        self.decay, self.bias_correction = decay, bias_correction
        self.steps = 0
        self.swapped_in = False
        self._values = flat_views(parameters)
        self._average = {name: allocate(v.size, v.dtype) for name, v in self._values.items()}
        self._segments = segments(parameters, dict.fromkeys(parameters, Rule(0.0)))
        for name, value in self._values.items():
            self._average[name][...] = value

    def step(self) -> None:
        """Takes the parameters as they are into the average. Raises StateError when swapped."""
        self.steps += 1
        try:
            self.update(step=self.steps)
        except StateError:
            self.steps -= 1
            raise

    def update(self, *, step: int, share: int = 0, shares: int = 1) -> None:
        """One worker's part of update number `step` (1 is the first); all parts are one step()."""
        if self.swapped_in:
            raise StateError("the parameters hold the average: call swap() before the next update")
        d = self.decay
        weight = (1 - d) / (1 - d**step) if self.bias_correction else 1 - d
        for segment in share_of(self._segments, share, shares):
            p, a = self._values[segment.buffer], self._average[segment.buffer]
            scratch = aligned_empty((BLOCK,), p.dtype)
            for block in blocks(segment.start, segment.end):
                s = scratch[: block.stop - block.start]
                np.subtract(p[block], a[block], out=s)
                np.multiply(s, weight, out=s)
                np.add(a[block], s, out=a[block])

    def swap(self) -> None:
        """Exchanges parameters and average, in place; the second time takes all back exactly."""
        self.swapped_in = not self.swapped_in
        for name, value in self._values.items():
            average = self._average[name]
            for block in blocks(0, value.size):
                kept = value[block].copy()
                value[block] = average[block]
                average[block] = kept

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the parameters hold the average."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def state(self) -> dict[str, Array]:
        """Everything a bit-exact resume needs, as arrays (not copies). Raises StateError while
        swapped: the average is then among the parameters.
        """
        if self.swapped_in:
            raise StateError("the parameters hold the average: call swap() before saving its state")
        averages = {f"average/{name}": array for name, array in self._average.items()}
        return {"steps": np.array([self.steps], np.int64)} | averages

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Takes over what state() gave; raises StateError when it does not fit."""
        load_arrays(self.state(), state, "average of weights")
        self.steps = int(state["steps"][0])
