"""Values over steps: smoothed for the eye, thinned for the page.

>>> curve = Curve.of([(1, 3.0), (2, 1.0), (3, float("nan"))])
>>> len(curve), curve.last
(2, 1.0)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "smooth", "thin"]

Array = NDArray[Any]

LEAST_REACH = 5  # points to either side that a mean takes in


@dataclass(frozen=True)
class Curve:
    """Finite values [n], float64, at increasing steps [n]."""

    steps: Array
    values: Array

    @classmethod
    def of(cls, points: Iterable[tuple[float, float]]) -> Curve:
        """From (step, value) pairs in any order; a step that comes twice counts as it came last.

        What is not finite cannot be drawn and is left out.
        """
        latest = dict(points)
        steps = np.array(sorted(latest), np.float64)
        values = np.array([latest[step] for step in steps], np.float64)
        finite = np.isfinite(values)
        return cls(steps[finite], values[finite])

    def __len__(self) -> int:
        return self.steps.size

    @property
    def last(self) -> float | None:
        """The value at the last step."""
        return float(self.values[-1]) if len(self) else None


def smooth(curve: Curve) -> Curve:
    """The mean of a stretch around each point: a fiftieth of the curve to either side.

    Less at the start, where a loss falls too fast to be averaged; at the end what lies behind.
    """
    n = len(curve)
    at = np.arange(n)
    reach = np.minimum(max(LEAST_REACH, n // 50), at // 5)
    sums = np.r_[0.0, np.cumsum(curve.values)]
    first, end = at - reach, np.minimum(at + reach + 1, n)
    return Curve(curve.steps, (sums[end] - sums[first]) / (end - first))


def thin(curve: Curve, positions: Array, limit: int = 1000) -> Array:
    """Indices of at most `limit` points that draw the same curve: each stretch's lowest, highest.

    positions [n] are where the points lie across the picture, 0 to 1 and never falling, so that
    a logarithmic axis keeps its early points. First and last point stay.
    """
    n = len(curve)
    if n <= limit:
        return np.arange(n)
    stretch = np.minimum(positions * (limit // 2 - 1), limit // 2 - 2).astype(np.int64)
    starts = np.flatnonzero(np.r_[True, stretch[1:] != stretch[:-1]])
    kept = {0, n - 1}
    for first, end in zip(starts, [*starts[1:], n], strict=True):
        part = curve.values[first:end]
        kept |= {int(first + part.argmin()), int(first + part.argmax())}
    return np.array(sorted(kept))
