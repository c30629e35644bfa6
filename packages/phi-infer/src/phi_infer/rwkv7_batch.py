"""Many texts of an RWKV-7, one token of each in one pass: matrices are read once for all texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.rwkv7_pass import add_channel_mix, add_time_mix, logits, norm
from phi_infer.rwkv7_prefill import prefill
from phi_infer.rwkv7_weights import RWKV7Weights
from phi_model import RWKV7State
from phi_model.rwkv7.state import state_shapes

__all__ = ["RWKV7Batch"]

Array = NDArray[Any]


class RWKV7Batch:
    """States of up to `slots` texts."""

    def __init__(self, weights: RWKV7Weights, slots: int) -> None:
        self.weights = weights
        shapes = state_shapes(weights.config, slots).values()
        self._states = [np.zeros((shape[1], slots, *shape[2:]), np.float32) for shape in shapes]
        self._positions = np.zeros(slots, np.int64)

    def positions(self, slots: Sequence[int] | Array) -> Array:
        """Tokens read so far by the texts in `slots`."""
        positions: Array = self._positions[slots]
        return positions

    def clear(self, slot: int) -> None:
        """The start of a text."""
        for state in self._states:
            state[:, slot] = 0
        self._positions[slot] = 0

    def memory(self, slot: int) -> list[Array]:
        """What is remembered of a text: arrays of the shapes of a step's memory()."""
        return [state[None, :, slot] for state in self._states]

    def set_position(self, slot: int, position: int) -> None:
        """The memory of a slot was written: that of a text of so many tokens."""
        self._positions[slot] = position

    def prefill(self, slot: int, ids: Sequence[int] | Array) -> Array:
        """Reads ids into one slot; the logits [V] after the last."""
        time_shift, channel_shift, wkv = (array[None, :, slot] for array in self._states)
        state = RWKV7State(time_shift, channel_shift, wkv)  # of views
        self._positions[slot] += len(ids)
        return prefill(self.weights, state, ids)

    def step(self, slots: Array, tokens: Array) -> Array:
        """Logits [n, V] after one token for each of n different slots."""
        first = int(slots[0])
        in_a_row = np.array_equal(slots, np.arange(first, first + len(slots)))
        chosen = slice(first, first + len(slots)) if in_a_row else slots  # a view, or copies
        w = self.weights
        x, first_values = w.embed(tokens), None
        for layer, *states in zip(w.layers, *self._states, strict=True):
            time_shift, channel_shift, wkv = (state[chosen] for state in states)

            def recur(*inputs: Array, wkv: Array = wkv) -> Array:
                return _recur(wkv, *inputs)

            h = norm(w, x, layer.time_norm)
            first_values = add_time_mix(w, layer, x, h, time_shift, first_values, recur)
            time_shift[...] = h
            h = norm(w, x, layer.channel_norm)
            add_channel_mix(layer, x, h, channel_shift)
            channel_shift[...] = h
            if not in_a_row:
                for state, new in zip(states, (time_shift, channel_shift, wkv), strict=True):
                    state[slots] = new
        self._positions[slots] += 1
        return logits(w, x)


def _recur(
    wkv: Array, r: Array, log_w: Array, k: Array, v: Array, kappa: Array, minus_b: Array
) -> Array:
    """S = S diag(w) - (S kappa) (kappa a)^T + v k^T,  y = S r; wkv [n, H, D, D] in place."""
    heads = wkv.shape[:3]
    read = (wkv @ kappa.reshape(heads)[..., None])[..., 0]
    wkv *= np.exp(log_w).reshape(*heads[:2], 1, -1)
    left = np.stack([v.reshape(heads), read], axis=-1)
    right = np.stack([k.reshape(heads), minus_b.reshape(heads)], axis=-2)
    wkv += left @ right
    y: Array = (wkv @ r.reshape(heads)[..., None]).reshape(r.shape)
    return y
