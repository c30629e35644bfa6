"""Prompts and completions as rows to train on: what is given is masked, what follows is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_tokenizer import Tokenizer
from phi_train.errors import ConfigError

__all__ = ["END_OF_TEXT", "Row", "RowOrder", "collate", "make_row", "widest"]

Array = NDArray[Any]

END_OF_TEXT = "<|endoftext|>"
ROUND_TO = 16  # tokens: batches of few different widths, so that little memory is made anew
SORTED_TOGETHER = 8  # batches whose rows are dealt out by length


@dataclass(frozen=True)
class Row:
    """Token ids of a text between two end tokens; the first n_given are not learnt."""

    ids: tuple[int, ...]
    n_given: int


def make_row(tokenizer: Tokenizer, given: str, learnt: str) -> Row:
    """The two parts encoded apart, so that a generator's tokens are those of training.

    Raises ConfigError for a tokenizer without an end token.
    """
    end = tokenizer.special_tokens.get(END_OF_TEXT)
    if end is None:
        raise ConfigError(f"the tokenizer has no {END_OF_TEXT}: train one with it")
    head = [end, *(int(i) for i in tokenizer.encode(given))] if given else [end]
    return Row((*head, *(int(i) for i in tokenizer.encode(learnt)), end), len(head))


def collate(rows: Sequence[Row], *, width: int = 0) -> tuple[Array, Array, Array]:
    """(ids, targets, weights) [B, T]: weight 1 on what is learnt, 0 on the given and on padding.

    width: T; by default what the longest row needs, rounded up.
    """
    width = width or widest(rows)
    ids = np.zeros((len(rows), width), np.int64)
    targets, weights = np.zeros_like(ids), np.zeros(ids.shape)
    for i, row in enumerate(rows):
        n = len(row.ids) - 1
        ids[i, :n], targets[i, :n] = row.ids[:-1], row.ids[1:]
        weights[i, row.n_given - 1 : n] = 1.0
    return ids, targets, weights


def widest(rows: Sequence[Row]) -> int:
    """Tokens that a batch of the rows needs, rounded up."""
    longest = max(len(row.ids) for row in rows) - 1
    return -(-longest // ROUND_TO) * ROUND_TO


class RowOrder:
    """Which rows are in the batch of each step: epoch after epoch, each in an order of its own.

    A function of seed and step alone, so that a resumed run sees the same batches. Rows of a
    batch are of similar length, where the draw allows it; of an epoch's last, incomplete batch
    nothing is seen.
    """

    def __init__(self, rows: Sequence[Row], *, batch_size: int, seed: int) -> None:
        if not rows:
            raise ConfigError("there is nothing to train on: no example was kept")
        self._lengths = np.array([len(row.ids) for row in rows])
        self._rows, self._size, self._seed = rows, min(batch_size, len(rows)), seed
        self._epoch, self._batches = -1, np.zeros((0, 0), np.int64)

    def batch(self, step: int) -> list[Row]:
        """The rows of step 0, 1, .."""
        epoch, number = divmod(step, len(self._rows) // self._size)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._deal(epoch)
        return [self._rows[i] for i in self._batches[number]]

    def _deal(self, epoch: int) -> Array:
        """Row numbers [batches, batch_size]."""
        rng = np.random.Generator(np.random.Philox(key=[self._seed, epoch]))
        whole = len(self._rows) // self._size * self._size
        order = rng.permutation(len(self._rows))[:whole]
        together = SORTED_TOGETHER * self._size
        for start in range(0, whole, together):
            part = order[start : start + together]
            order[start : start + together] = part[np.argsort(self._lengths[part], kind="stable")]
        dealt: Array = rng.permutation(order.reshape(-1, self._size))
        return dealt
