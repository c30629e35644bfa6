"""Entropy figures and their standard errors."""

from itertools import islice
from math import log, sqrt
from random import Random
from statistics import mean, stdev

import pytest

from phi_train.stories import StoryGrammar, entropy, entropy_of, ratio

GRAMMAR = StoryGrammar()


def test_the_figures_are_the_plain_ones():
    chosen = list(islice(GRAMMAR.stories(3), 400))
    got = entropy_of(chosen)
    nats = [-s.log_prob for s in chosen]
    assert got.n_stories == 400
    assert got.nats_per_story.value == pytest.approx(mean(nats))
    assert got.nats_per_story.error == pytest.approx(stdev(nats) / sqrt(400))
    size = sum(len(s.text.encode()) for s in chosen)
    assert got.bits_per_byte.value == pytest.approx(sum(nats) / log(2) / size)
    assert got.bytes_per_story.value == pytest.approx(size / 400)
    assert got.nats_per_token is None
    assert entropy(GRAMMAR, n_stories=400, seed=3) == got


def test_nats_a_token_use_the_given_count():
    got = entropy(GRAMMAR, n_stories=50, count_tokens=lambda text: len(text.split()) + 1)
    assert got.nats_per_token is not None
    assert got.nats_per_token.value * 2 > got.bits_per_byte.value


def test_the_error_of_a_ratio_covers_it():
    """The spread of the estimate over many samples is what each sample says it is."""
    rng = Random(0)
    estimates = []
    for _ in range(400):
        sizes = [rng.uniform(1, 3) for _ in range(50)]
        estimates.append(ratio([2 * s + rng.gauss(0, 1) for s in sizes], sizes))
    spread = stdev(e.value for e in estimates)
    assert mean(e.error for e in estimates) == pytest.approx(spread, rel=0.1)
    assert abs(mean(e.value for e in estimates) - 2) < 4 * spread / 20


def test_two_seeds_agree_within_their_errors():
    a, b = (entropy(GRAMMAR, n_stories=2000, seed=s).bits_per_byte for s in (1, 2))
    assert abs(a.value - b.value) < 4 * sqrt(a.error**2 + b.error**2)


def test_more_events_carry_more_nats():
    few, many = (entropy(StoryGrammar(events=n), n_stories=300) for n in (0, 5))
    assert many.nats_per_story.value > few.nats_per_story.value + 10


def test_an_estimate_prints_itself():
    assert str(ratio([1.0, 2.0], [1.0, 1.0])) == "1.5000 +- 0.5000"
