"""Kneser-Ney against a slow twin, written from the formula: dicts of tuples, no cleverness."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest

from phi_train import KneserNey, baselines
from phi_train.ngram import NAMES

D = 0.75


class Slow:
    """p_k(w | c) = (max(n(c w) - d, 0) + d N(c) p_{k-1}(w | c')) / n(c),    p_0 = 1 / V

    n counts occurrences at the highest order and distinct left neighbours below it.
    """

    def __init__(self, ids, *, vocab_size, order):
        self.vocab_size, self.order, self.end = vocab_size, order, vocab_size - 1
        self.n = {order: defaultdict(int)}
        for gram in self.grams(ids, order):
            self.n[order][gram] += 1
        for k in range(1, order):
            left = defaultdict(set)
            for gram in self.grams(ids, k + 1):
                left[gram[1:]].add(gram[0])
            self.n[k] = {gram: len(words) for gram, words in left.items()}

    def grams(self, ids, k):
        padded = [self.end] * (k - 1) + [int(i) for i in ids]
        return [tuple(padded[i : i + k]) for i in range(len(ids))]

    def p(self, word, context):
        k = len(context) + 1
        lower = self.p(word, context[1:]) if context else 1 / self.vocab_size
        after = {gram[-1]: n for gram, n in self.n[k].items() if gram[:-1] == context}
        total = sum(after.values())
        if not total:
            return lower
        return (max(after.get(word, 0) - D, 0) + D * len(after) * lower) / total

    def probabilities(self, ids):
        return [self.p(gram[-1], gram[:-1]) for gram in self.grams(ids, self.order)]


@pytest.mark.parametrize("order", range(1, 6))
@pytest.mark.parametrize("vocab_size", [2, 3, 6, 20])
def test_equals_the_slow_twin(stream, order, vocab_size):
    rng = np.random.default_rng(100 * order + vocab_size)
    for size in (1, 2, 5, 40, 120):
        train, valid = rng.integers(0, vocab_size, size), rng.integers(0, vocab_size, 30)
        fast = KneserNey(stream(train, vocab_size), vocab_size=vocab_size, order=5)
        found = fast.probabilities(stream(valid, vocab_size), order)
        slow = Slow(train, vocab_size=vocab_size, order=order)
        np.testing.assert_allclose(found, slow.probabilities(valid), rtol=1e-12)


def test_a_text_that_ends_in_its_two_smallest_ids(stream):
    """The padding in front makes grams of its own, which must not be taken for the text's."""
    train = [2, 0, 1, 3, 1, 0, 2, 0, 1, 3]
    fast = KneserNey(stream(train, 4), vocab_size=4, order=3)
    slow = Slow(train, vocab_size=4, order=3)
    valid = [0, 1, 3, 0, 2, 1, 3, 3, 0, 1]
    found = fast.probabilities(stream(valid, 4), 3)
    np.testing.assert_allclose(found, slow.probabilities(valid), rtol=1e-12)


@pytest.mark.parametrize("order", range(1, 6))
def test_probabilities_over_the_vocabulary_sum_to_one(stream, order):
    vocab_size = 9
    rng = np.random.default_rng(order)
    train = rng.integers(0, vocab_size, 80)
    model = KneserNey(stream(train, vocab_size), vocab_size=vocab_size, order=order)
    for context in (rng.integers(0, vocab_size, 6), train[10:16], np.zeros(6, int)):
        total = 0.0
        for word in range(vocab_size):
            p = model.probabilities(stream([*context, word], vocab_size), order)[-1]
            assert 0 < p < 1
            total += p
        assert total == pytest.approx(1, abs=1e-12)


def test_a_context_never_seen_passes_on(stream):
    model = KneserNey(stream([0, 1, 0, 1], 5), vocab_size=5, order=2)
    seen = model.probabilities(stream([3, 0], 5), 2)[-1]
    slow = Slow([0, 1, 0, 1], vocab_size=5, order=2)
    assert seen == pytest.approx(slow.p(0, ()))


def test_baselines_are_named_and_fall_with_the_order(stream):
    text = [0, 1, 2, 3] * 50
    losses = baselines(stream(text, 8), stream(text[:60], 8), vocab_size=8, order=5)
    assert list(losses) == list(NAMES)
    assert losses["uniform"] == pytest.approx(math.log(8))
    assert losses["unigram"] > losses["bigram"] > 0
    assert losses["trigram"] < 0.1
    three = baselines(stream(text, 8), stream(text[:60], 8), vocab_size=8, order=3)
    assert list(three) == ["uniform", "unigram", "bigram", "trigram"]


def test_ids_beyond_16_bits_of_keys(stream):
    """Keys are products of counts and vocabulary: they must not overflow."""
    rng = np.random.default_rng(0)
    train, valid = rng.integers(0, 60_000, 3000), rng.integers(0, 60_000, 50)
    fast = KneserNey(stream(train, 60_000), vocab_size=60_000, order=3)
    slow = Slow(train, vocab_size=60_000, order=3)
    found = fast.probabilities(stream(valid, 60_000), 3)
    np.testing.assert_allclose(found, slow.probabilities(valid), rtol=1e-12)
