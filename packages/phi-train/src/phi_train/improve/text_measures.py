"""How far generated text is from real text, and how rich it is; on token ids, text by text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_train.errors import ConfigError

__all__ = ["classifier_accuracy", "distinct", "divergence", "repetition"]

Array = NDArray[Any]
Texts = Sequence[Sequence[int]]

BUCKETS = 2048  # features of the classifier: single tokens and pairs, hashed
STEPS, RATE, DECAY = 300, 1.0, 1e-3  # of its gradient descent


def _ngrams(ids: Sequence[int], n: int) -> Iterator[tuple[int, ...]]:
    return zip(*(ids[i:] for i in range(n)), strict=False)


def divergence(real: Texts, own: Texts, n: int) -> float:
    """Jensen-Shannon divergence of their n-grams in bits: 0 when alike, 1 when none is shared.

    Two finite samples of one source differ too: compare with that of two real samples.

    >>> divergence([[1, 2, 3]], [[1, 2, 3]], 2), divergence([[1, 2]], [[3, 4]], 2)
    (0.0, 1.0)
    """
    counts = [Counter(g for ids in texts for g in _ngrams(ids, n)) for texts in (real, own)]
    if not all(counts):
        raise ConfigError(f"there are no {n}-grams to compare: the texts are too short")
    grams = list(counts[0] | counts[1])
    p, q = (np.array([c[g] for g in grams]) / sum(c.values()) for c in counts)
    middle = (p + q) / 2
    return float((_relative(p, middle) + _relative(q, middle)) / 2)


def _relative(p: Array, q: Array) -> float:
    some = p > 0
    return float((p[some] * np.log2(p[some] / q[some])).sum())


def distinct(texts: Texts, n: int) -> float:
    """Different n-grams over all n-grams (Li et al. 2016, arXiv:1510.03055)."""
    grams = [g for ids in texts for g in _ngrams(ids, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(texts: Texts, n: int) -> float:
    """The share of n-grams that the same text has had before."""
    again = total = 0
    for ids in texts:
        grams = list(_ngrams(ids, n))
        total += len(grams)
        again += len(grams) - len(set(grams))
    return again / total if total else 0.0


def classifier_accuracy(real: Texts, own: Texts, *, seed: int = 0) -> float:
    """How often a small classifier tells held-out real from generated; 0.5 is guessing.

    Logistic regression on which tokens and pairs occur, trained on half of each side (the same
    halves, so paired texts stay together), tested on the other, and then the other way round.
    """
    n = min(len(real), len(own))
    if n < 2:
        raise ConfigError(f"{n} texts of each side cannot be split; give 2 or more")
    features = np.stack([_features(ids) for ids in [*real[:n], *own[:n]]])
    labels = np.repeat([1.0, 0.0], n)
    half = np.random.default_rng(seed).permutation(n) < n // 2
    first = np.concatenate([half, half])
    right = [
        (_classify(features[part], labels[part], features[~part]) == labels[~part])
        for part in (first, ~first)
    ]
    return float(np.concatenate(right).mean())


def _features(ids: Sequence[int]) -> Array:
    """[BUCKETS + 1], of length 1 but for the constant at the end."""
    found = np.zeros(BUCKETS + 1)
    for a in ids:
        found[a * 31 % BUCKETS] = 1
    for a, b in _ngrams(ids, 2):
        found[(a * 1_000_003 + b * 7919 + 17) % BUCKETS] = 1
    found /= max(1.0, float(np.linalg.norm(found)))
    found[-1] = 1
    return found


def _classify(features: Array, labels: Array, asked: Array) -> Array:
    """Labels [n] of `asked`, by gradient descent from zero."""
    weights = np.zeros(features.shape[1])
    for _ in range(STEPS):
        p = 0.5 + 0.5 * np.tanh(0.5 * (features @ weights))
        weights -= RATE * (features.T @ (p - labels) / labels.size + DECAY * weights)
    answers: Array = (asked @ weights > 0).astype(np.float64)
    return answers
