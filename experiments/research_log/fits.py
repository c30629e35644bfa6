"""Two laws of loss against size and volume, and their fits.

    Fit        E + A / N^a + B / D^b        Hoffmann et al. 2022, arXiv:2203.15556, approach 3
    JointFit   (A / N^(a/b) + B / D)^b      Kaplan et al. 2020, arXiv:2001.08361, equation 1.5

In the first more tokens help every size alike; in the second what is short hides the other.
For given exponents the rest is linear (of the second, L^(1/b) is), so exponents are searched on a
grid and the rest solved for, nothing below 0, residuals relative to L. Intervals: the residuals
are drawn anew 200 times (bootstrap), 2.5 % to 97.5 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Fit", "JointFit", "fit_joint", "fit_scaling", "interval"]

Array = NDArray[Any]

EXPONENTS = np.geomspace(0.05, 1.5, 96)  # 3.6 % apart
RATIOS = np.geomspace(0.05, 2.0, 96)  # a / b
DRAWS = 200


@dataclass(frozen=True)
class Fit:
    """The best fit first, then the bootstrap's: arrays [1 + DRAWS] of each parameter."""

    floor: Array
    size_scale: Array  # A
    size_power: Array  # a
    token_scale: Array  # B
    token_power: Array  # b
    residual: float  # root mean square, in the unit of L

    def loss(self, size: float, tokens: float) -> Array:
        """L(N, D), the best first."""
        of_size = self.size_scale * size**-self.size_power
        return self.floor + of_size + self.token_scale * tokens**-self.token_power

    def tokens_for(self, level: float, size: float) -> Array:
        """D at which L = level; infinite where the size alone keeps L above it."""
        room = level - self.floor - self.size_scale * size**-self.size_power
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(room > 0, (self.token_scale / room) ** (1 / self.token_power), np.inf)

    def best_ratio(self, flops: float) -> Array:
        """Tokens a parameter that make L least for 6 N D = flops."""
        a, b = self.size_power, self.token_power
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = (a * self.size_scale / (b * self.token_scale)) ** (1 / (a + b))
            size = ratio * (flops / 6) ** (b / (a + b))
            return flops / 6 / size**2


@dataclass(frozen=True)
class JointFit:
    """The best fit first, then the bootstrap's, as in Fit."""

    size_scale: Array  # A
    size_power: Array  # a
    token_scale: Array  # B
    token_power: Array  # b
    residual: float

    @property
    def floor(self) -> Array:
        """This law goes to 0."""
        return np.zeros_like(self.size_power)

    def _of_size(self, size: float) -> Array:
        return self.size_scale * size ** -(self.size_power / self.token_power)

    def loss(self, size: float, tokens: float) -> Array:
        """L(N, D), the best first."""
        return (self._of_size(size) + self.token_scale / tokens) ** self.token_power

    def tokens_for(self, level: float, size: float) -> Array:
        """D at which L = level; infinite where the size alone keeps L above it."""
        room = level ** (1 / self.token_power) - self._of_size(size)
        with np.errstate(divide="ignore"):
            return np.where(room > 0, self.token_scale / room, np.inf)

    def best_ratio(self, flops: float) -> Array:
        """Tokens a parameter that make L least for 6 N D = flops."""
        r = self.size_power / self.token_power
        size = (r * self.size_scale * flops / 6 / self.token_scale) ** (1 / (1 + r))
        return flops / 6 / size**2


def fit_scaling(sizes: Array, tokens: Array, losses: Array, *, floor: bool = True) -> Fit:
    """floor: fit E as well; without, E = 0, for a loss that is an excess already.

    Raises ValueError for fewer than six points: five numbers are fitted.
    """
    if losses.size < 6:
        raise ValueError(f"{losses.size} points are too few to fit five numbers")
    columns = [np.ones_like(losses)] * floor
    best = _search(sizes, tokens, losses, losses[:, None], columns)
    e, big_a, a, big_b, b = best[:, 0]
    fitted = e + big_a * sizes**-a + big_b * tokens**-b
    drawn = _drawn(losses, fitted)
    every = np.concatenate([best, _search(sizes, tokens, losses, drawn, columns)], axis=1)
    return Fit(*every, residual=_deviation(losses, fitted))


def fit_joint(sizes: Array, tokens: Array, losses: Array) -> JointFit:
    """Raises ValueError for fewer than five points: four numbers are fitted."""
    if losses.size < 5:
        raise ValueError(f"{losses.size} points are too few to fit four numbers")
    best = _search_joint(sizes, tokens, losses[:, None])
    big_a, a, big_b, b = best[:, 0]
    fitted = (big_a * sizes ** -(a / b) + big_b / tokens) ** b
    every = np.concatenate([best, _search_joint(sizes, tokens, _drawn(losses, fitted))], axis=1)
    return JointFit(*every, residual=_deviation(losses, fitted))


def _drawn(losses: Array, fitted: Array) -> Array:
    """[points, DRAWS]: the law with residuals drawn anew."""
    relative = (losses - fitted) / fitted
    drawn = np.random.default_rng(0).choice(relative, (losses.size, DRAWS))
    targets: Array = fitted[:, None] * (1 + drawn)
    return targets


def _deviation(losses: Array, fitted: Array) -> float:
    return float(np.sqrt(np.mean((losses - fitted) ** 2)))


def _search(
    sizes: Array, tokens: Array, losses: Array, targets: Array, columns: list[Array]
) -> Array:
    """[E, A, a, B, b] of the best fit to each column of targets [points, draws]."""
    n, relative = targets.shape[1], targets / losses[:, None]
    least, best = np.full(n, np.inf), np.zeros((5, n))
    unit_n, unit_d = np.exp(np.log(sizes).mean()), np.exp(np.log(tokens).mean())
    of_tokens = (tokens / unit_d) ** -EXPONENTS[:, None]
    total = (relative**2).sum(axis=0)
    for a in EXPONENTS:  # every b at once
        of_size = np.broadcast_to((sizes / unit_n) ** -a, of_tokens.shape)
        constant = [np.broadcast_to(column, of_tokens.shape) for column in columns]
        matrices = np.stack([*constant, of_size, of_tokens], axis=2) / losses[:, None]
        q, r = np.linalg.qr(matrices)
        along = q.swapaxes(1, 2) @ relative
        solved = np.linalg.solve(r, along)  # [b, columns, draws]
        squares = total - (along**2).sum(axis=1)
        squares[(solved < 0).any(axis=1)] = np.inf
        place, draws = squares.argmin(axis=0), np.arange(n)
        better = squares[place, draws] < least
        least[better] = squares[place, draws][better]
        b, chosen = EXPONENTS[place], solved[place, :, draws].T
        e = chosen[0] if columns else np.zeros(n)
        row = [e, chosen[-2] * unit_n**a, np.full(n, a), chosen[-1] * unit_d**b, b]
        best[:, better] = np.stack(row)[:, better]
    return best


def _search_joint(sizes: Array, tokens: Array, targets: Array) -> Array:
    """[A, a, B, b] of the best fit to each column of targets [points, draws].

    1 - L / fitted is nearly b (1 - (L / fitted)^(1/b)), which is linear in A and B.
    """
    n = targets.shape[1]
    least, best = np.full(n, np.inf), np.zeros((4, n))
    unit_n, unit_d = np.exp(np.log(sizes).mean()), np.exp(np.log(tokens).mean())
    of_size = (sizes / unit_n) ** -RATIOS[:, None]
    of_tokens = np.broadcast_to(unit_d / tokens, of_size.shape)
    scale = np.exp(np.log(targets).mean(axis=0))
    for b in EXPONENTS:  # every ratio at once, each draw relative to itself
        weight = (targets / scale) ** (-1 / b)
        matrices = np.stack([of_size, of_tokens], axis=2)  # [ratios, points, 2]
        weighted = matrices[:, None] * weight.T[:, :, None]  # [ratios, draws, points, 2]
        gram = weighted.swapaxes(-1, -2) @ weighted
        sums = weighted.sum(axis=2)
        solved = np.linalg.solve(gram, sums[..., None])[..., 0]  # [ratios, draws, 2]
        squares = b**2 * (len(sizes) - (solved * sums).sum(axis=2))
        squares[(solved <= 0).any(axis=2)] = np.inf
        place, draws = squares.argmin(axis=0), np.arange(n)
        better = squares[place, draws] < least
        least[better] = squares[place, draws][better]
        chosen, r = solved[place, draws].T * scale ** (1 / b), RATIOS[place]
        row = [chosen[0] * unit_n**r, r * b, chosen[1] * unit_d, np.full(n, b)]
        best[:, better] = np.stack(row)[:, better]
    return best


def interval(values: Array) -> tuple[float, float, float]:
    """(best, 2.5 %, 97.5 %) of what a Fit gives."""
    low, high = np.quantile(values[1:], (0.025, 0.975), method="nearest")
    return float(values[0]), float(low), float(high)
