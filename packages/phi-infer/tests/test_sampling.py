"""Which tokens can be drawn, how often, and that a seed means one text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi_infer import PhiInferError, Sampling, SamplingError
from phi_infer.philox import uniform
from phi_infer.sampling import log_probabilities, probabilities, sample

P = np.array([0.05, 0.4, 0.1, 0.25, 0.2])  # in no order
LOGITS = np.log(P)


def _support(**settings):
    p = probabilities(LOGITS, Sampling(temperature=1.0, **settings))
    assert p.sum() == pytest.approx(1)
    kept = np.flatnonzero(p)
    np.testing.assert_allclose(p[kept], P[kept] / P[kept].sum())  # the rest keep their ratios
    return set(kept.tolist())


def test_without_settings_all_of_the_distribution():
    assert _support() == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("top_k", "kept"),
    [(0, {0, 1, 2, 3, 4}), (1, {1}), (2, {1, 3}), (3, {1, 3, 4}), (9, set(range(5)))],
)
def test_top_k(top_k, kept):
    assert _support(top_k=top_k) == kept


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (0.0, {1}),
        (0.39, {1}),
        (0.41, {1, 3}),
        (0.64, {1, 3}),
        (0.66, {1, 3, 4}),
        (0.84, {1, 3, 4}),
        (0.86, {1, 2, 3, 4}),
        (1.0, set(range(5))),
    ],
)
def test_top_p_keeps_the_fewest_that_reach_it(top_p, kept):
    assert _support(top_p=top_p) == kept


@pytest.mark.parametrize(
    ("min_p", "kept"),
    [(0.0, set(range(5))), (0.2, {1, 2, 3, 4}), (0.3, {1, 3, 4}), (0.51, {1, 3}), (1.0, {1})],
)
def test_min_p_is_relative_to_the_best(min_p, kept):
    assert _support(min_p=min_p) == kept


def test_the_filters_work_one_after_the_other():
    assert _support(top_p=0.88) == {1, 2, 3, 4}
    assert _support(top_k=4, top_p=0.88) == {1, 3, 4}  # of the four's 0.95 that is 0.836
    assert _support(top_k=3, min_p=0.55) == {1, 3}


@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=12),
    st.integers(1, 12),
)
def test_top_k_keeps_exactly_k_even_among_equals(logits, top_k):
    p = probabilities(np.array(logits, np.float32), Sampling(temperature=1.0, top_k=top_k))
    kept = np.flatnonzero(p)
    assert len(kept) == min(top_k, len(logits))
    best = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:top_k]
    assert set(kept.tolist()) == set(best)


@given(
    st.lists(st.integers(-6, 3), min_size=1, max_size=40),
    st.integers(0, 40),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.999, 1.0]),
)
def test_top_k_and_top_p_by_sorting_everything(logits, top_k, top_p):
    found = probabilities(
        np.array(logits, np.float32), Sampling(temperature=1.0, top_k=top_k, top_p=top_p)
    )
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    order = order[: top_k or None]
    p = np.exp(np.array(logits, np.float64)[order])
    p /= p.sum()
    kept = [i for i in range(len(p)) if i == 0 or top_p == 1 or p[:i].sum() < top_p - 1e-9]
    doubtful = any(abs(p[:i].sum() - top_p) < 1e-9 for i in range(1, len(p)))
    if not doubtful:
        assert set(np.flatnonzero(found).tolist()) == {order[i] for i in kept}
        expected = p[kept] / p[kept].sum()
        np.testing.assert_allclose(found[[order[i] for i in kept]], expected)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_the_random_number_is_that_of_numpy_s_philox(seed, position):
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, position], np.uint64)))
    assert uniform(seed, position) == rng.random()


def test_temperature_zero_is_argmax():
    rng = np.random.default_rng(0)
    for seed in range(20):
        logits = rng.standard_normal(50).astype(np.float32)
        settings = Sampling(temperature=0, seed=seed, top_p=0.5)
        assert sample(logits, settings, position=seed) == int(np.argmax(logits))


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-300, 5e-324])
def test_a_tiny_temperature_is_argmax_without_a_warning(temperature):
    settings = Sampling(temperature=temperature)
    assert {sample(LOGITS, settings, position=i) for i in range(50)} == {1}


def test_temperature_flattens_and_sharpens():
    def p(t):
        return probabilities(LOGITS, Sampling(temperature=t))

    np.testing.assert_allclose(p(1.0), P)
    np.testing.assert_allclose(p(0.5), P**2 / (P**2).sum())
    np.testing.assert_allclose(p(2.0), np.sqrt(P) / np.sqrt(P).sum())
    np.testing.assert_allclose(p(float("inf")), np.full(5, 0.2))


def test_huge_logits_do_not_overflow():
    p = probabilities(np.array([3e4, -3e4, 2.9e4], np.float32), Sampling(temperature=0.1))
    np.testing.assert_allclose(p, [1, 0, 0], atol=1e-12)


def test_repeat_penalty_lowers_what_was_seen_whatever_its_sign():
    logits = np.array([2.0, -2.0, 1.0])
    p = probabilities(logits, Sampling(temperature=1.0, repeat_penalty=2.0), seen=[0, 1, 1])
    expected = np.exp([1.0, -4.0, 1.0])
    np.testing.assert_allclose(p, expected / expected.sum())
    greedy = Sampling(temperature=0, repeat_penalty=3.0)
    assert sample(logits, greedy, position=0, seen=[0]) == 2


def test_frequency_and_presence_penalties_by_hand():
    settings = Sampling(temperature=1.0, frequency_penalty=0.5, presence_penalty=-0.25)
    p = probabilities(LOGITS, settings, seen=[0, 1, 1, 1], drawn=[1, 1, 3])
    expected = P * np.exp([0, -2 * 0.5 + 0.25, 0, -0.5 + 0.25, 0])
    np.testing.assert_allclose(p, expected / expected.sum())


def test_only_the_last_tokens_were_drawn():
    logits = np.array([1.0, 0.9, 0.0])
    settings = Sampling(temperature=0, presence_penalty=0.2)
    assert sample(logits, settings, position=0, seen=[0, 0]) == 0
    assert sample(logits, settings, position=1, seen=[0, 0]) == 1
    assert sample(logits, settings, position=1, seen=[0, 1]) == 0


def test_logit_bias_is_added_before_all_else():
    bias = {1: -1.0, 4: 0.5}
    p = probabilities(LOGITS, Sampling(temperature=2.0, logit_bias=bias))
    expected = np.sqrt(P * np.exp([0, -1.0, 0, 0, 0.5]))
    np.testing.assert_allclose(p, expected / expected.sum())
    assert sample(LOGITS, Sampling(temperature=0, logit_bias={0: 9.0}), position=0) == 0


def test_log_probabilities_sum_to_one_and_know_no_setting():
    np.testing.assert_allclose(log_probabilities(LOGITS + 500), np.log(P), atol=1e-12)
    huge = log_probabilities(np.array([3e4, -3e4], np.float32))
    np.testing.assert_allclose(huge, [0, -6e4])


@pytest.mark.parametrize("settings", [{}, {"top_k": 3}, {"temperature": 0.5, "min_p": 0.1}])
@pytest.mark.parametrize("over", ["seeds", "positions"])
def test_frequencies_are_the_probabilities(settings, over):
    """Chi-square over 4000 draws; 99.99% quantiles, so that it never fails by chance."""
    settings = {"temperature": 1.0, **settings}
    n = 4000
    draws = [
        sample(
            LOGITS,
            Sampling(seed=i if over == "seeds" else 3, **settings),
            position=0 if over == "seeds" else i,
        )
        for i in range(n)
    ]
    p = probabilities(LOGITS, Sampling(**settings))
    counts = np.bincount(draws, minlength=5)
    assert (counts[p == 0] == 0).all()
    kept = p > 0
    chi_square = ((counts[kept] - n * p[kept]) ** 2 / (n * p[kept])).sum()
    assert chi_square < {3: 18.4, 4: 21.1, 5: 23.5}[int(kept.sum())]


def test_a_draw_depends_on_seed_and_position_alone():
    logits = np.random.default_rng(0).standard_normal(200)
    one = [sample(logits, Sampling(seed=5), position=i) for i in range(40)]
    two = [sample(logits, Sampling(seed=5), position=i) for i in reversed(range(40))][::-1]
    other = [sample(logits, Sampling(seed=6), position=i) for i in range(40)]
    assert one == two
    assert one != other


@pytest.mark.parametrize("seed", [0, 2**32, 2**63, 2**64 - 1])
def test_any_seed_of_64_bits_is_a_seed_of_its_own(seed):
    def draws(seed):
        logits = np.zeros(1000)
        return [sample(logits, Sampling(seed=seed), position=i) for i in range(4)]

    assert draws(seed) == draws(seed)
    assert draws(seed) != draws(seed ^ 1)


def test_the_logits_are_left_alone():
    logits = np.array(LOGITS, np.float32)
    before = logits.copy()
    sample(
        logits, Sampling(top_k=2, top_p=0.5, min_p=0.1, repeat_penalty=2.0), position=0, seen=[1]
    )
    assert np.array_equal(logits, before)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": -0.1}, "temperature is -0.1; it must be 0 or more"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1; it must be 0 or more"),
        ({"top_p": 1.5}, "top_p is 1.5; it must be between 0 and 1"),
        ({"top_p": -0.5}, "top_p is -0.5"),
        ({"min_p": 2.0}, "min_p is 2.0; it must be between 0 and 1"),
        ({"repeat_penalty": 0.0}, "repeat_penalty is 0.0; it must be between 0.01 and 100"),
        ({"frequency_penalty": 2.5}, "frequency_penalty is 2.5; it must be between -2 and 2"),
        ({"presence_penalty": -3}, "presence_penalty is -3"),
        ({"logit_bias": {7: 101}}, "logit_bias of token 7 is 101; it must be between -100 and 100"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
    ],
)
def test_settings_out_of_range(settings, words):
    with pytest.raises(SamplingError, match=words):
        Sampling(**settings)
    assert issubclass(SamplingError, PhiInferError)
