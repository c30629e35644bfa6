"""States and document borders of a batch, in memory that forked workers share."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from phi_model.config import ModelConfig
from phi_model.errors import ConfigError
from phi_model.memory import shared_zeros
from phi_model.rwkv7.state import RWKV7State, state_shapes

__all__ = ["SharedStream", "as_reset"]

Array = NDArray[Any]


def as_reset(values: ArrayLike, shape: tuple[int, ...]) -> Array:
    """`values` as booleans [B, T], True where a token starts a document."""
    array = np.atleast_2d(np.asarray(values))
    if array.shape != shape or array.dtype.kind not in "b":
        raise ConfigError(
            f"reset is {array.dtype} of shape {array.shape}; it must be bool of shape {shape}, "
            "True where a token starts a document"
        )
    return array


class SharedStream:
    """Room for the states of up to `rows` texts, and for the borders of `tokens` tokens."""

    def __init__(self, config: ModelConfig, rows: int, tokens: int, dtype: DTypeLike) -> None:
        self.rows, self.tokens = rows, tokens
        shapes = state_shapes(config, rows).values()
        time, channel, wkv = (shared_zeros(prod(s), dtype).reshape(s) for s in shapes)
        self._state = RWKV7State(time, channel, wkv)
        self._reset = shared_zeros(tokens, np.uint8)

    def put(self, state: RWKV7State, reset: Array) -> None:
        """Copies a batch's states and borders in."""
        for name, array in self._state.arrays.items():
            array[: len(reset)] = state.arrays[name]
        self._reset[: reset.size] = reset.ravel()

    def take(self, state: RWKV7State, length: int) -> None:
        """Copies the states that the workers left into `state`."""
        for name, array in state.arrays.items():
            array[...] = self._state.arrays[name][: len(array)]
        state.position += length

    def enter(self, state: RWKV7State, first: int, length: int) -> Array:
        """Fills a worker's own `state` with the rows from `first` on; returns their borders."""
        end = first + len(state.wkv)
        for name, array in state.arrays.items():
            array[...] = self._state.arrays[name][first:end]
        return self._reset[first * length : end * length].reshape(-1, length).view(bool)

    def leave(self, state: RWKV7State, first: int) -> None:
        """Puts a worker's `state` back."""
        for name, array in state.arrays.items():
            self._state.arrays[name][first : first + len(array)] = array
