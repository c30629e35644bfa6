"""Axes: where a value lies between two ends, and the round values that deserve a tick.

>>> [tick.label for tick in Scale.around([0, 1430], zero=True).ticks()]
['0', '500', '1,000']
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scale", "Tick", "number"]

Array = NDArray[Any]

MARGIN = 0.04  # of the axis, left free beyond the outermost values
FEWEST, MOST = 3, 6  # ticks
MANTISSAS: tuple[tuple[float, ...], ...] = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))


@dataclass(frozen=True)
class Tick:
    """A value on an axis, how far along it lies (0 to 1), and its label."""

    value: float
    position: float
    label: str


@dataclass(frozen=True)
class Scale:
    """From `low` to `high`, low < high; both above 0 when logarithmic."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def around(
        cls, values: Iterable[float], *, log: bool = False, zero: bool = False, tight: bool = False
    ) -> Scale:
        """The scale that holds all of `values`: from 0 on if wanted, without margins if tight.

        A logarithmic one holds those above 0; where there are none it is linear.
        """
        found = [v for v in values if math.isfinite(v)]
        log = log and max(found, default=0.0) > 0
        found = [v for v in found if v > 0 or not log]
        low, high = (min(found), max(found)) if found else (0.0, 1.0)
        if log:
            if high / low < 1 + 1e-9:
                low, high = low / 1.5, high * 1.5
            room = 1.0 if tight else (high / low) ** MARGIN
            return cls(low / room, high * room, log=True)
        low = min(low, 0.0) if zero else low
        if high - low <= 1e-9 * max(abs(low), abs(high)):
            room = 0.5 * abs(high) or 0.5
            low, high = (low if zero else low - room), high + room
        room = 0.0 if tight else (high - low) * MARGIN
        return cls(low if zero else low - room, high + room)

    def position(self, values: Any) -> Array:
        """How far along the axis, 0 at `low` and 1 at `high`; below 0 what a log cannot show."""
        array = np.asarray(values, np.float64)
        if not self.log:
            return np.asarray((array - self.low) / (self.high - self.low))
        logs = np.log(np.maximum(array, self.low * 1e-3))
        low = math.log(self.low)
        return np.asarray((logs - low) / (math.log(self.high) - low))

    def ticks(self) -> list[Tick]:
        """Three to seven round values within the scale."""
        values = (self._round_in_logs() if self.log else None) or self._round()
        return [Tick(v, float(self.position(v)), number(v)) for v in values]

    def _round(self) -> list[float]:
        rough = (self.high - self.low) / MOST
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * m for m in (1, 2, 2.5, 5, 10, 20) if power * m >= rough)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{i * step:.10g}") for i in range(first, last + 1)]

    def _round_in_logs(self) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for mantissas in MANTISSAS:
            found = [float(f"{m}e{p}") for p in powers for m in mantissas]
            inside = [v for v in found if self.low <= v <= self.high]
            if len(inside) >= FEWEST:
                return inside[:: -(-len(inside) // (MOST + 1))]
        return []


def number(value: float) -> str:
    """A short label.

    >>> [number(v) for v in (0.00005, 0.25, 1500, 25_000, 1_200_000)]
    ['5e-5', '0.25', '1,500', '25k', '1.2M']
    """
    size = abs(value)
    if size >= 1e9:
        return f"{value:.3g}".replace("e+", "e")
    if size >= 1e6:
        return f"{value / 1e6:,.4g}M"
    if size >= 1e4:
        return f"{value / 1e3:,.4g}k"
    if 0 < size < 1e-3:
        digits, _, power = f"{value:.3g}".partition("e")
        return f"{digits}e{int(power)}" if power else digits
    return f"{value:,.5g}"
