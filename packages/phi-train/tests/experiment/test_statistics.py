"""Student's t against the integral of its density; intervals against coverage; levels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from phi_train.experiment.statistics import (
    holm,
    paired_difference,
    spent_level,
    t_quantile,
    t_tail,
)


def _tail_by_integration(t, freedom):
    """The density, integrated over x = tan(u): its whole tail in a finite range."""
    u = np.linspace(math.atan(t), math.pi / 2, 400_001)[:-1]
    log_norm = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    norm = math.exp(log_norm) / math.sqrt(freedom * math.pi)
    density = norm * (1 + np.tan(u) ** 2 / freedom) ** (-(freedom + 1) / 2) / np.cos(u) ** 2
    return float(np.trapezoid(density, u))


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 2.5, 12.0])
def test_tail(freedom, t):
    assert t_tail(t, freedom) == pytest.approx(_tail_by_integration(t, freedom), abs=2e-6)


@pytest.mark.parametrize("tail", [0.5, 0.1, 0.025, 1e-4, 1e-9])
@pytest.mark.parametrize("freedom", [1, 2, 5, 100])
def test_quantile_is_the_inverse(tail, freedom):
    assert t_tail(t_quantile(tail, freedom), freedom) == pytest.approx(tail, rel=1e-9)


@pytest.mark.parametrize("pairs", [2, 3, 5])
def test_the_interval_covers_as_often_as_it_says(pairs):
    rng = np.random.default_rng(1)
    draws = rng.normal(0.3, 1.0, (3000, pairs))
    found = [paired_difference(d, np.zeros(pairs), level=0.1) for d in draws.tolist()]
    covered = np.mean([d.low <= 0.3 <= d.high for d in found])
    assert covered == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / 3000))


def test_p_agrees_with_the_interval():
    for values in ([1.0, 1.2, 0.9], [0.1, 0.2, 0.4, 0.2], [0.01, -0.3]):
        zero = [0.0] * len(values)
        p = paired_difference(values, zero).p
        edge = paired_difference(values, zero, level=p)
        assert min(abs(edge.low), abs(edge.high)) == pytest.approx(0, abs=1e-9)


def test_few_or_odd_values():
    one = paired_difference([1.0], [2.0])
    assert (one.mean, one.low, one.high, one.p) == (-1.0, -math.inf, math.inf, 1.0)
    assert paired_difference([], []).p == 1.0
    assert paired_difference([math.nan, 1.0], [0.0, 0.0]).low == -math.inf
    agreeing = paired_difference([1.0, 1.0, 1.0], [1.1, 1.1, 1.1])
    assert agreeing.high < 0
    careful = paired_difference([1.0, 1.0, 1.0], [1.1, 1.1, 1.1], least_deviation=0.1)
    assert careful.high > 0


def test_levels_of_any_number_sum_to_the_rate():
    assert sum(spent_level(0.05, n) for n in range(1, 100_000)) == pytest.approx(0.05, rel=1e-4)


def test_holm_is_the_closed_test():
    """Against its definition: reject in order while p <= rate / (those left)."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.uniform(0, 0.2, 6).tolist()
        adjusted = holm(p)
        for rate in (0.01, 0.05, 0.2):
            rejected = set()
            for rank, i in enumerate(sorted(range(6), key=lambda i: p[i])):
                if p[i] > rate / (6 - rank):
                    break
                rejected.add(i)
            assert {i for i in range(6) if adjusted[i] <= rate} == rejected
