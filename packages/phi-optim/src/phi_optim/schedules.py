"""Learning-rate schedules: plain functions from the step to a factor of the peak rate.

A schedule is called with the number of updates already made (0 for the first) and the number
that will be made in all. It depends on nothing else, so a resumed run follows the same curve.

>>> [round(1e-3 * linear(step, 2000, warmup_steps=100), 6) for step in (0, 99, 1049, 1999)]
[1e-05, 0.001, 0.0005, 0.0]

sequence() and piecewise() make new ones of the same form:

>>> restarts = sequence((cosine, 1), (cosine, 3))
>>> [round(restarts(step, 12), 2) for step in range(12)]
[1.0, 0.5, 0.0, 1.0, 0.96, 0.85, 0.69, 0.5, 0.31, 0.15, 0.04, 0.0]
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from phi_optim.errors import HyperparameterError

__all__ = [
    "Schedule",
    "constant",
    "cosine",
    "linear",
    "piecewise",
    "sequence",
    "warmup",
    "warmup_stable_decay",
]

Schedule = Callable[[int, int], float]


def warmup(step: int, warmup_steps: int) -> float:
    """Rises linearly to 1, which it reaches at update number `warmup_steps`."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps > 0 else 1.0


def constant(step: int, total_steps: int, *, warmup_steps: int = 0) -> float:  # noqa: ARG001
    """1 after the warm-up."""
    return warmup(step, warmup_steps)


def linear(step: int, total_steps: int, *, warmup_steps: int = 0, final: float = 0.0) -> float:
    """After the warm-up a straight line from 1 to `final` at the last update."""
    return warmup(step, warmup_steps) * _line(_progress(step, total_steps, warmup_steps), final)


def cosine(step: int, total_steps: int, *, warmup_steps: int = 0, final: float = 0.0) -> float:
    """After the warm-up half a cosine from 1 to `final` (Loshchilov and Hutter 2017)."""
    progress = (1 - math.cos(math.pi * _progress(step, total_steps, warmup_steps))) / 2
    return warmup(step, warmup_steps) * _line(progress, final)


def warmup_stable_decay(
    step: int,
    total_steps: int,
    *,
    warmup_steps: int = 0,
    final: float = 0.0,
    decay_share: float = 0.4,
) -> float:
    """1 after the warm-up, then a straight line to `final` over the last `decay_share`.

    Hu et al. 2024, arXiv:2404.06395. Raises HyperparameterError for a share outside 0..1.
    """
    if not 0 <= decay_share <= 1:
        raise HyperparameterError(f"decay_share is {decay_share}; it must be between 0 and 1")
    decay_start = max(warmup_steps, round(total_steps * (1 - decay_share)))
    return warmup(step, warmup_steps) * _line(_progress(step, total_steps, decay_start), final)


def sequence(*pieces: tuple[Schedule, float]) -> Schedule:
    """One schedule after the other; the numbers are their shares of all steps.

    Each is called with the steps of its own piece, as if that were the run. Raises
    HyperparameterError unless all shares are above 0.
    """
    if not pieces or not all(0 < share < math.inf for _, share in pieces):
        shares = [share for _, share in pieces]
        raise HyperparameterError(f"the shares are {shares}; each must be above 0 and finite")
    whole = sum(share for _, share in pieces)

    def schedule(step: int, total_steps: int) -> float:
        start, done = 0, 0.0
        for piece, share in pieces[:-1]:
            done += share
            end = round(total_steps * done / whole)
            if step < end:
                return piece(step - start, end - start)
            start = end
        return pieces[-1][0](step - start, total_steps - start)

    return schedule


def piecewise(*corners: tuple[float, float]) -> Schedule:
    """Straight lines between corners (progress, factor), progress from 0 to 1 at the last update.

    Before the first corner and after the last one the factor is theirs. Raises
    HyperparameterError unless progress rises from corner to corner.
    """
    at = [progress for progress, _ in corners]
    if not corners or any(not a < b for a, b in pairwise(at)):
        raise HyperparameterError(f"the corners are at {at}; each must lie after the one before")

    def schedule(step: int, total_steps: int) -> float:
        progress = _progress(step, total_steps, 0)
        if progress <= at[0]:
            return corners[0][1]
        for (left, low), (right, high) in pairwise(corners):
            if progress <= right:
                return low + (high - low) * (progress - left) / (right - left)
        return corners[-1][1]

    return schedule


def _progress(step: int, total_steps: int, start: int) -> float:
    """0 up to update `start`, 1 at the last update and after."""
    return min(1.0, max(0.0, (step - start) / max(1, total_steps - 1 - start)))


def _line(progress: float, final: float) -> float:
    return 1 + (final - 1) * progress
