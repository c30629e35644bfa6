"""Many texts of a GPT at different positions, one token of each in one pass.

Matrices are read once for all texts. Each text has its own ring of keys and values; attention
looks at as many rows as the longest text has, of which those that a shorter one has not filled
are zero and weigh nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.gpt_cache import BLOCK, GPTCache
from phi_infer.gpt_pass import GPTPass
from phi_infer.gpt_prefill import prefill
from phi_infer.gpt_weights import GPTWeights

__all__ = ["GPTBatch"]

Array = NDArray[Any]


class GPTBatch:
    """Caches of up to `slots` texts. window: see new_step."""

    def __init__(self, weights: GPTWeights, slots: int, *, window: int | None = None) -> None:
        self.weights = weights
        first = GPTCache(weights, window)
        self._keys, self._values = (
            np.zeros((len(part), slots, *part.shape[1:]), np.float32) for part in first.memory
        )
        self._pass = GPTPass(weights, slots)
        self._caches = [
            GPTCache(weights, window, memory=(self._keys[:, i], self._values[:, i]))
            for i in range(slots)
        ]

    def positions(self, slots: Sequence[int] | Array) -> Array:
        """Tokens read so far by the texts in `slots`."""
        return np.array([self._caches[slot].position for slot in slots])

    def clear(self, slot: int) -> None:
        """The start of a text."""
        self._caches[slot].clear()

    def memory(self, slot: int) -> list[Array]:
        """What is remembered of a text: arrays of the shapes of a step's memory()."""
        return self._caches[slot].memory

    def set_position(self, slot: int, position: int) -> None:
        """The memory of a slot was written: that of a text of so many tokens."""
        self._caches[slot].position = position

    def prefill(self, slot: int, ids: Sequence[int] | Array) -> Array:
        """Reads ids into one slot; the logits [V] after the last."""
        return prefill(self._caches[slot], ids)

    def step(self, slots: Array, tokens: Array) -> Array:
        """Logits [n, V] after one token for each of n different slots."""
        caches = [self._caches[slot] for slot in slots]
        for cache in caches:
            cache.make_room(1)
        with np.errstate(over="ignore", invalid="ignore"):
            logits = self._run(slots, tokens, self.positions(slots))
        for cache in caches:
            cache.position += 1
        return logits

    def _run(self, slots: Array, tokens: Array, positions: Array) -> Array:
        w, window = self.weights, self._keys.shape[3]
        turns = w.turns(positions)[:, None]
        places = positions % window
        n = min(-(-(int(positions.max()) + 1) // BLOCK) * BLOCK, window)
        span = slice(int(slots.min()), int(slots.max()) + 1)  # a view of the caches, not a copy
        at = slots - span.start
        side_by_side = np.array_equal(at, np.arange(span.stop - span.start))
        spread: Array | None = None
        layers = self._pass
        layers.embed(tokens)
        for layer, all_keys, all_values in zip(w.layers, self._keys, self._values, strict=True):
            q, new_keys, new_values = layers.qkv(layer, turns)
            all_keys[slots, :, places] = new_keys
            all_values[slots, :, places] = new_values
            keys, values = all_keys[span, :, :n], all_values[span, :, :n]
            if side_by_side:
                layers.attended[...] = layers.attention(q, keys, values)
            else:  # slots between those in step are computed and thrown away
                if spread is None:
                    spread = np.zeros((span.stop - span.start, *q.shape[1:]), np.float32)
                spread[at] = q
                layers.attended[...] = layers.attention(spread, keys, values)[at]
            layers.add_attended(layer)
            layers.add_mlp(layer)
        return layers.logits()
