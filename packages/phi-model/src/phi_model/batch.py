"""What users pass as a batch, checked once and laid where every worker can see it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from phi_model.errors import ConfigError
from phi_model.memory import shared_zeros

__all__ = ["SharedBatch", "as_ids", "same_shape", "token_factors"]

Array = NDArray[Any]

LARGEST_WEIGHT = 1e30  # float32 ends at 3e38, and weights are multiplied by gradients


def as_ids(name: str, values: ArrayLike, upper: int) -> Array:
    """`values` as whole numbers [B, T] in [0, upper); a vector is a batch of one row."""
    try:
        array = np.atleast_2d(np.asarray(values))
    except ValueError as error:
        raise ConfigError(f"{name} is not [B, T]: its rows differ in length") from error
    if array.ndim != 2 or array.size == 0:
        raise ConfigError(f"{name} has shape {array.shape}; it must be [B, T], neither of them 0")
    if array.dtype.kind not in "iu":
        raise ConfigError(f"{name} holds {array.dtype}; token ids are whole numbers")
    if array.min() < 0 or array.max() >= upper:
        raise ConfigError(
            f"{name} holds an id outside 0..{upper - 1} (from {array.min()} to {array.max()}): "
            "the tokenizer and the model's vocab_size do not belong together"
        )
    return array.astype(np.intp, copy=False)


def same_shape(ids: Array, targets: Array) -> None:
    """Raises ConfigError unless both are [B, T] alike."""
    if ids.shape != targets.shape:
        raise ConfigError(f"ids are {ids.shape}, targets {targets.shape}: they must agree")


def token_factors(shape: tuple[int, ...], weights: ArrayLike | None) -> Array:
    """What each token's loss is multiplied by [B, T], float64: its weight over their number."""
    if weights is None:
        return np.full(shape, 1.0 / (shape[0] * shape[1]))
    try:
        array = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"weights are not numbers [B, T]: {error}") from error
    if array.ndim == 1:
        array = array[None]
    if array.shape != shape:
        raise ConfigError(f"weights have shape {array.shape}, ids {shape}: they must agree")
    if not np.isfinite(array).all():
        raise ConfigError("weights hold a NaN or an infinity")
    if np.abs(array).max() > LARGEST_WEIGHT:
        raise ConfigError(f"weights hold a number beyond {LARGEST_WEIGHT:g}: scale them down")
    factors: Array = array / max(1, int(np.count_nonzero(array)))
    return factors


class SharedBatch:
    """Room for a batch of up to `capacity` tokens in memory that forked workers share."""

    def __init__(self, capacity: int, dtype: DTypeLike) -> None:
        self.capacity = capacity
        self._ids = shared_zeros(capacity, np.intp)
        self._targets = shared_zeros(capacity, np.intp)
        self._factors = shared_zeros(capacity, dtype)
        self._losses = shared_zeros(capacity, dtype)

    def put(self, ids: Array, targets: Array, factors: Array | None = None) -> None:
        """Copies a batch in."""
        self._ids[: ids.size] = ids.ravel()
        self._targets[: ids.size] = targets.ravel()
        if factors is not None:
            self._factors[: ids.size] = factors.ravel()

    def rows(self, first: int, end: int, length: int) -> tuple[Array, Array, Array, Array]:
        """ids, targets, factors and losses of rows first..end, views of [rows, length]."""
        part = slice(first * length, end * length)
        ids, targets, factors, losses = (
            array[part].reshape(-1, length)
            for array in (self._ids, self._targets, self._factors, self._losses)
        )
        return ids, targets, factors, losses
