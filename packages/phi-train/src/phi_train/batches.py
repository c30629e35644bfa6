"""Training batches from a token stream, each a function of (seed, step) alone.

random    windows that start anywhere, drawn anew for every step
epochs    every window once before any comes again, in a new order each time
streams   each row goes on where it ended in the step before, for a state that is carried along

All of them take whole arrays at once and never make a list of all windows, so any step of any
stream, also a memory-mapped one, costs the same.

>>> import numpy as np
>>> stream = TokenStream(np.arange(9, dtype=np.uint16), end_token=4, n_documents=2, text_bytes=7)
>>> ids, targets = make_batches("streams", stream, batch_size=2, seq_len=2)(1)
>>> (targets - ids).tolist()
[[1, 1], [1, 1]]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from phi_train.errors import ConfigError, DataError
from phi_train.permutation import mixed, permuted
from phi_train.tokens import TokenStream

__all__ = [
    "KINDS",
    "Batches",
    "RandomWindows",
    "SequentialStreams",
    "ShuffledEpochs",
    "document_numbers",
    "make_batches",
]

AHEAD = 16  # steps drawn at once: a step evicts this code from the cache, and so pays for it anew

IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]


class Batches(Protocol):
    """What the training loop asks for."""

    batch_size: int
    seed: int

    def __call__(self, step: int) -> tuple[IntArray, IntArray]:
        """(ids, targets) [B, T] of update number `step`."""

    def resets(self, step: int) -> BoolArray:
        """Where a state must be forgotten before the token of ids [B, T]: a document begins there,
        or the row does not go on from the step before.
        """


class _Windows(ABC):
    """Rows of seq_len + 1 ids from the places that a subclass chooses."""

    def __init__(
        self, stream: TokenStream, *, batch_size: int, seq_len: int, seed: int = 0
    ) -> None:
        """Raises DataError when the stream is shorter than one window."""
        if stream.ids.size <= seq_len:
            fitting = max(1, stream.ids.size // 2)
            raise DataError(
                f"the training text has {stream.ids.size} tokens, fewer than one window of "
                f"{seq_len} and its next token: give more text, or --seq-len {fitting}"
            )
        self._ids, self._end_token = stream.ids, stream.end_token
        self._offsets = np.arange(seq_len + 1)
        self.batch_size, self.seq_len, self.seed = batch_size, seq_len, seed

    @abstractmethod
    def _starts(self, step: int) -> NDArray[np.int64]:
        """Where in the stream each row begins [B]."""

    def __call__(self, step: int) -> tuple[IntArray, IntArray]:
        """(ids, targets) [B, T] of update number `step`."""
        rows = self._ids[self._starts(step)[:, None] + self._offsets].astype(np.intp)
        return rows[:, :-1], rows[:, 1:]

    def resets(self, step: int) -> BoolArray:
        """Where a document or the row begins [B, T]: rows know nothing of the step before."""
        places = self._starts(step)[:, None] + self._offsets[:-1]
        begins: BoolArray = np.asarray(self._ids[places - 1] == self._end_token)
        begins[:, 0] = True  # also the one at place 0, before which there is nothing
        return begins


class RandomWindows(_Windows):
    """Windows that start anywhere in the stream, drawn anew for every step.

    Raises DataError when the stream is shorter than one window.
    """

    _drawn: tuple[int, list[NDArray[np.int64]]] = (0, [])  # the first step, and what follows

    def _starts(self, step: int) -> NDArray[np.int64]:
        first, drawn = self._drawn
        if not first <= step < first + len(drawn):
            first, drawn = step, [self._draw(step + i) for i in range(AHEAD)]
            self._drawn = first, drawn
        return drawn[step - first]

    def _draw(self, step: int) -> NDArray[np.int64]:
        key = np.array([self.seed, step], np.uint64)
        rng = np.random.Generator(np.random.Philox(key=key))
        return rng.integers(0, self._ids.size - self.seq_len, self.batch_size)


class ShuffledEpochs(_Windows):
    """Windows side by side: each once in an epoch, and every epoch in an order of its own.

    A batch may hold the end of one epoch and the beginning of the next. The tokens that do not
    fill a window are left out at the two ends, others in every epoch.

    Raises DataError when the stream is shorter than one window.
    """

    @property
    def windows(self) -> int:
        """In an epoch."""
        return int(self._ids.size - 1) // self.seq_len

    def _starts(self, step: int) -> NDArray[np.int64]:
        first = step * self.batch_size
        epoch, place = divmod(first % self.windows + np.arange(self.batch_size), self.windows)
        epoch += first // self.windows
        spare = self._ids.size - 1 - self.windows * self.seq_len
        shift = mixed(self.seed, epoch) % np.uint64(spare + 1)
        window = permuted(place, self.windows, seed=self.seed, number=epoch)
        return window * self.seq_len + shift.astype(np.int64)


class SequentialStreams(_Windows):
    """As many lanes as rows: row b goes through its part of the stream from front to end.

    A model that carries its state from step to step sees texts longer than seq_len; `resets`
    says where it has to forget. After an epoch the rows change lanes.

    Raises DataError when the stream has less than one window a row.
    """

    def __init__(
        self, stream: TokenStream, *, batch_size: int, seq_len: int, seed: int = 0
    ) -> None:
        super().__init__(stream, batch_size=batch_size, seq_len=seq_len, seed=seed)
        if self.steps_an_epoch < 1:
            raise DataError(
                f"the training text has {stream.ids.size} tokens, fewer than a window of "
                f"{seq_len} for each of {batch_size} rows: give more text, or a smaller "
                "--batch-size or --seq-len"
            )

    @property
    def steps_an_epoch(self) -> int:
        """Windows in a lane."""
        return int(self._ids.size - 1) // (self.batch_size * self.seq_len)

    def _starts(self, step: int) -> NDArray[np.int64]:
        epoch, window = divmod(step, self.steps_an_epoch)
        lane = self.steps_an_epoch * self.seq_len
        number = np.full(self.batch_size, epoch)
        lanes = permuted(np.arange(self.batch_size), self.batch_size, seed=self.seed, number=number)
        spare = self._ids.size - 1 - self.batch_size * lane
        shift = mixed(self.seed, number) % np.uint64(spare + 1)
        return lanes * lane + window * self.seq_len + shift.astype(np.int64)

    def resets(self, step: int) -> BoolArray:
        """Where a document begins [B, T], and at the beginning of an epoch every row."""
        begins = super().resets(step)
        if step % self.steps_an_epoch:
            begins[:, 0] = self._ids[self._starts(step) - 1] == self._end_token
        return begins


def document_numbers(resets: BoolArray) -> IntArray:
    """Which document of its row each token belongs to [B, T], from 0: a packed row's borders.

    >>> document_numbers(np.array([[True, False, True, False]])).tolist()
    [[0, 0, 1, 1]]
    """
    return np.cumsum(resets, axis=1, dtype=np.intp) - resets[:, :1]


KINDS: dict[str, type[_Windows]] = {
    "random": RandomWindows,
    "epochs": ShuffledEpochs,
    "streams": SequentialStreams,
}


def make_batches(
    kind: str, stream: TokenStream, *, batch_size: int, seq_len: int, seed: int = 0
) -> Batches:
    """Batches of a kind by its name. Raises ConfigError, DataError."""
    if kind not in KINDS:
        raise ConfigError(f"batches are {kind!r}; there are {', '.join(KINDS)}")
    return KINDS[kind](stream, batch_size=batch_size, seq_len=seq_len, seed=seed)
