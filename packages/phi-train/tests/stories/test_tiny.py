"""On a tiny grammar every story can be listed, so that nothing has to be believed."""

from collections import Counter
from itertools import islice
from math import exp, fsum, sqrt

import pytest

from phi_train.stories import (
    NotAStory,
    all_stories,
    check_grammar,
    entropy,
    is_validation,
    tiny_grammar,
)

TINY = tiny_grammar()


@pytest.fixture(scope="module")
def everything():
    return list(all_stories(TINY))


def test_all_texts_are_distinct(everything):
    assert len({text for text, _ in everything}) == len(everything) > 1000


def test_the_probabilities_sum_to_one(everything):
    assert abs(fsum(exp(log_prob) for _, log_prob in everything) - 1) < 1e-12


def test_the_parser_agrees_on_each(everything):
    for text, log_prob in everything:
        assert abs(TINY.log_prob(text) - log_prob) < 1e-12


def test_it_is_unambiguous():
    check_grammar(TINY)


def test_the_generator_writes_these_and_no_others_as_often_as_it_says(everything):
    probs = {text: exp(log_prob) for text, log_prob in everything}
    n = 20_000
    counts = Counter(s.text for s in islice(TINY.stories(1), n))
    assert set(counts) <= set(probs)
    chi2 = fsum((counts[text] - n * p) ** 2 / (n * p) for text, p in probs.items())
    assert abs(chi2 - len(probs)) < 5 * sqrt(
        fsum(1 / (n * p) for p in probs.values()) + 2 * len(probs)
    )


def test_the_sampled_entropy_is_the_exact_one(everything):
    exact = fsum(-p * exp(p) for _, p in everything)
    for seed in range(3):
        sampled = entropy(TINY, n_stories=10_000, seed=seed)
        assert abs(sampled.nats_per_story.value - exact) < 3.5 * sampled.nats_per_story.error
        assert 0 < sampled.nats_per_story.error < 0.05


def test_what_the_split_does_to_the_probabilities(everything):
    """The sides share out the mass: a side's texts have P(text) / P(side) in its stream."""
    kept = fsum(exp(p) for text, p in everything if not is_validation(text))
    spread = 0.3 * sqrt(fsum(exp(2 * p) for _, p in everything))
    assert abs(kept - 0.9) < 4 * spread


@pytest.mark.parametrize("size", [1, 10, -1])
def test_no_part_of_a_story_is_a_story(everything, size):
    for text, _ in everything[::50]:
        with pytest.raises(NotAStory):
            TINY.log_prob(text[:size])
