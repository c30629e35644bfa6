"""Many texts of an RWKV-7, one token of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.rwkv7_step import RWKV7Step
from phi_infer.rwkv7_weights import RWKV7Weights

__all__ = ["RWKV7Batch"]

Array = NDArray[Any]


class RWKV7Batch:
    """States of up to `slots` texts."""

    def __init__(self, weights: RWKV7Weights, slots: int) -> None:
        self.weights = weights
        self._steps = [RWKV7Step(weights.config, weights) for _ in range(slots)]

    def positions(self, slots: Sequence[int] | Array) -> Array:
        """Tokens read so far by the texts in `slots`."""
        return np.array([self._steps[slot].position for slot in slots])

    def clear(self, slot: int) -> None:
        """The start of a text."""
        self._steps[slot] = RWKV7Step(self.weights.config, self.weights)

    def prefill(self, slot: int, ids: Sequence[int] | Array) -> Array:
        """Reads ids into one slot; the logits [V] after the last."""
        return self._steps[slot].prefill(ids)

    def step(self, slots: Array, tokens: Array) -> Array:
        """Logits [n, V] after one token for each of n different slots."""
        pairs = zip(slots, tokens, strict=True)
        return np.stack([self._steps[slot](int(token)) for slot, token in pairs])
