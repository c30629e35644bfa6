"""Training batches: random windows of the token stream, a function of (seed, step) alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from phi_train.errors import DataError
from phi_train.tokens import TokenStream

__all__ = ["RandomWindows"]

IntArray = NDArray[np.intp]


class RandomWindows:
    """Windows that start anywhere in the stream, drawn anew for every step.

    Raises DataError when the stream is shorter than one window.
    """

    def __init__(
        self, stream: TokenStream, *, batch_size: int, seq_len: int, seed: int = 0
    ) -> None:
        if stream.ids.size <= seq_len:
            fitting = max(1, stream.ids.size // 2)
            raise DataError(
                f"the training text has {stream.ids.size} tokens, fewer than one window of "
                f"{seq_len} and its next token: give more text, or --seq-len {fitting}"
            )
        self._ids = stream.ids
        self._n_starts = stream.ids.size - seq_len
        self._offsets = np.arange(seq_len + 1)
        self.batch_size, self.seed = batch_size, seed

    def __call__(self, step: int) -> tuple[IntArray, IntArray]:
        """(ids, targets) [B, T] of update number `step`."""
        key = np.array([self.seed, step], np.uint64)
        rng = np.random.Generator(np.random.Philox(key=key))
        starts = rng.integers(0, self._n_starts, self.batch_size)
        rows = self._ids[starts[:, None] + self._offsets].astype(np.intp)
        return rows[:, :-1], rows[:, 1:]
