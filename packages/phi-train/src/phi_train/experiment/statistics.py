"""Is it better? Paired differences, Student's t without scipy, and levels for many trials.

>>> d = paired_difference([1.00, 1.02, 0.99], [1.10, 1.13, 1.08], level=0.05)
>>> print(f"{d.mean:.3f} from {d.low:.3f} to {d.high:.3f}")
-0.100 from -0.125 to -0.075
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Difference", "holm", "paired_difference", "spent_level", "t_quantile", "t_tail"]


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences and its two-sided interval of confidence 1 - level.

    Below 0 is better. p: two-sided, of the mean being 0 in truth. With less than two pairs the
    interval is everything, and p is 1.
    """

    mean: float
    low: float
    high: float
    p: float
    pairs: int
    level: float


def paired_difference(
    values: Sequence[float],
    baseline: Sequence[float],
    *,
    level: float = 0.05,
    least_deviation: float = 0.0,
) -> Difference:
    """Of values over baseline, both by seed in one order.

    least_deviation: the standard deviation of a single difference is taken to be no less, for a
    few that happen to agree are no evidence that there is no noise.
    """
    differences = [v - b for v, b in zip(values, baseline, strict=True)]
    n = len(differences)
    if n == 0 or not all(map(math.isfinite, differences)):
        return Difference(math.nan, -math.inf, math.inf, 1.0, n, level)
    mean = math.fsum(differences) / n
    if n == 1:
        return Difference(mean, -math.inf, math.inf, 1.0, n, level)
    variance = math.fsum((d - mean) ** 2 for d in differences) / (n - 1)
    error = max(math.sqrt(variance), least_deviation) / math.sqrt(n)
    if error == 0:
        return Difference(mean, mean, mean, 0.0 if mean else 1.0, n, level)
    reach = t_quantile(level / 2, n - 1) * error
    p = min(1.0, 2 * t_tail(abs(mean) / error, n - 1))
    return Difference(mean, mean - reach, mean + reach, p, n, level)


def spent_level(error_rate: float, number: int) -> float:
    """The level of test `number` (1, 2, ...): over any number of tests they sum to error_rate.

    1 / (n (n + 1)) of it each, so how many tests there will be need not be known (alpha spending
    as Foster and Stine's, 2008, with the union bound).

    >>> [round(spent_level(0.06, n), 4) for n in (1, 2, 3)]
    [0.03, 0.01, 0.005]
    """
    return error_rate / (number * (number + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p adjusted for their number (Holm 1979): the chance of any wrong one stays below it.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def t_tail(t: float, freedom: int) -> float:
    """P(T > t) of Student's t with `freedom` degrees of freedom, t >= 0."""
    return 0.5 * _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def t_quantile(tail: float, freedom: int) -> float:
    """The t >= 0 with P(T > t) = tail, 0 < tail <= 0.5; by bisection."""
    low, high = 0.0, 1.0
    while t_tail(high, freedom) > tail:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_tail(middle, freedom) > tail else (low, middle)
    return high


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised, I_x(a, b); its continued fraction by Lentz's method (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    tiny = 1e-300
    numerator, denominator = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    result = denominator
    for m in range(1, 500):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            denominator = 1 / ((1 + term * denominator) or tiny)
            numerator = (1 + term / numerator) or tiny
            result *= numerator * denominator
        if abs(numerator * denominator - 1) < 1e-16:
            break
    return front * result / a
