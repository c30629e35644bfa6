"""Interpolated Kneser-Ney baselines (Kneser and Ney 1995; Chen and Goodman 1999), vectorised.

    p_k(w | c) = (max(n(c w) - d, 0) + d N(c) p_{k-1}(w | c')) / n(c),    p_0 = 1 / V

n counts occurrences at the highest order and distinct left neighbours below it; N(c) is the
number of distinct words after c; c' is c without its first word; d = 0.75. A context never seen
passes on to p_{k-1}. Before the stream's first token stand end tokens.

Every n-gram gets a small id from the id of its first n-1 words and its last word, so that any
order fits into integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_train.tokens import TokenStream

__all__ = ["DISCOUNT", "NAMES", "KneserNey", "baselines"]

Array = NDArray[Any]

DISCOUNT = 0.75
NAMES = ("uniform", "unigram", "bigram", "trigram", "4-gram", "5-gram")


@dataclass
class _Order:
    """All k-grams of the training stream, sorted by key."""

    keys: Array  # context id * V + word, ascending; a k-gram's id is its place here
    occurrences: Array  # [grams] how often it occurs
    left_neighbours: Array  # [grams] how many distinct words precede it (0 at the top order)


class KneserNey:
    """All orders up to `order`, counted on `stream`."""

    def __init__(self, stream: TokenStream, *, vocab_size: int, order: int) -> None:
        self.vocab_size, self.order, self.end_token = vocab_size, order, stream.end_token
        self._orders: list[_Order] = []
        padded = self._padded(stream)
        ids = np.zeros(padded.size, np.int64)  # of the (k-1)-gram that ends at each place
        for _ in range(order):
            context = np.r_[0, ids[:-1]]
            keys, longer = np.unique(context * vocab_size + padded, return_inverse=True)
            # the first `order` places are padding: context, never counted themselves
            occurrences = np.bincount(longer[order:], minlength=keys.size)
            if self._orders:
                lower = self._orders[-1]
                suffix = np.zeros(keys.size, np.int64)  # of each gram, from any place in the text
                suffix[longer[order:]] = ids[order:]
                lower.left_neighbours = np.bincount(
                    suffix[occurrences > 0], minlength=lower.keys.size
                )
            self._orders.append(_Order(keys, occurrences, np.zeros(keys.size, np.int64)))
            ids = longer

    def _padded(self, stream: TokenStream) -> Array:
        front = np.full(self.order, self.end_token, np.int64)
        return np.concatenate([front, stream.ids.astype(np.int64)])

    def probabilities(self, stream: TokenStream, order: int) -> Array:
        """p(token | the order - 1 tokens before it) for each token of `stream` [M], float64."""
        padded = self._padded(stream)
        grams = self._ids_in(padded, order)
        p = np.full(stream.ids.size, 1 / self.vocab_size)
        for k in range(1, order + 1):
            table = self._orders[k - 1]
            counts = table.occurrences if k == order else table.left_neighbours
            contexts = table.keys // self.vocab_size
            n_contexts = int(contexts[-1]) + 1
            totals = np.bincount(contexts, weights=counts, minlength=n_contexts)
            followers = np.bincount(contexts[counts > 0], minlength=n_contexts)
            gram = grams[k][self.order :]
            context = grams[k - 1][self.order - 1 : -1]
            p = self._interpolate(p, gram, context, counts, totals, followers)
        return p

    def _ids_in(self, padded: Array, order: int) -> list[Array]:
        """ids[k][i]: the id of the k-gram that ends at i, or -1 when training never saw it."""
        ids = [np.zeros(padded.size, np.int64)]
        for table in self._orders[:order]:
            context = np.r_[0, ids[-1][:-1]]
            key = context * self.vocab_size + padded
            place = np.minimum(np.searchsorted(table.keys, key), table.keys.size - 1)
            ids.append(np.where((context >= 0) & (table.keys[place] == key), place, -1))
        return ids

    @staticmethod
    def _interpolate(
        p: Array, gram: Array, context: Array, counts: Array, totals: Array, followers: Array
    ) -> Array:
        known = (context >= 0) & (context < totals.size)
        context = np.where(known, context, 0)
        total = np.where(known, totals[context], 0)
        count = np.where(gram >= 0, counts[gram], 0)
        mixed = np.maximum(count - DISCOUNT, 0) + DISCOUNT * followers[context] * p
        mixed /= np.maximum(total, 1)
        interpolated: Array = np.where(total > 0, mixed, p)
        return interpolated


def baselines(
    train: TokenStream, valid: TokenStream, *, vocab_size: int, order: int = 3
) -> dict[str, float]:
    """name -> nats a token on `valid`, from uniform up to `order` (at most 5)."""
    model = KneserNey(train, vocab_size=vocab_size, order=order)
    losses = {"uniform": float(np.log(vocab_size))}
    for k in range(1, order + 1):
        losses[NAMES[k]] = float(-np.log(model.probabilities(valid, k)).mean())
    return losses
