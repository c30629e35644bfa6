"""How sure is a difference of accuracies on the same tasks? The paired bootstrap.

Efron and Tibshirani 1993, chapter 13: tasks are drawn anew with replacement, each with both of
its results; the interval is between quantiles of the mean difference.

>>> paired_bootstrap([1, 1, 1, 0] * 50, [0, 1, 0, 0] * 50).low > 0
True
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phi_train.errors import ConfigError

__all__ = ["Interval", "paired_bootstrap"]

ROUNDS_AT_ONCE = 500


@dataclass(frozen=True)
class Interval:
    """A mean difference and its two-sided interval of confidence 1 - level."""

    mean: float
    low: float
    high: float
    pairs: int
    level: float


def paired_bootstrap(
    values: Sequence[float],
    baseline: Sequence[float],
    *,
    level: float = 0.05,
    rounds: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Of values over baseline, task by task. Raises ConfigError unless they pair up."""
    if len(values) != len(baseline) or not len(values):
        raise ConfigError(
            f"{len(values)} values and {len(baseline)} of the baseline: give as many, one or more"
        )
    differences = np.asarray(values, np.float64) - np.asarray(baseline, np.float64)
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, rounds, ROUNDS_AT_ONCE):
        size = (min(ROUNDS_AT_ONCE, rounds - start), differences.size)
        means.append(differences[rng.integers(0, differences.size, size)].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), (level / 2, 1 - level / 2))
    mean = float(differences.mean())
    return Interval(mean, float(low), float(high), differences.size, level)
