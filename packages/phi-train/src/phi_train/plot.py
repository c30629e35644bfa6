"""A curve in a few lines of text: Braille characters, two by four dots each.

>>> print("\\n".join(curve([3.0, 2.0, 1.0], width=2, height=1)))
⠉⢆
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["curve"]

BLANK = 0x2800
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # [column][row from the top]


def curve(values: Sequence[float], *, width: int, height: int) -> list[str]:
    """`height` lines of `width` characters; the highest value touches the top, the lowest the
    bottom. Values that are not finite leave a gap; the columns share all values evenly.
    """
    columns = _columns(np.asarray(values, np.float64), 2 * width)
    cells = np.zeros((height, width), np.int64)
    if not np.isfinite(columns).any():
        return [chr(BLANK) * width] * height
    low, high = np.nanmin(columns), np.nanmax(columns)
    rows = (high - columns) / (high - low if high > low else 1.0) * (4 * height - 1)
    before = None
    for x, row in enumerate(rows):
        if not np.isfinite(row):
            before = None
            continue
        y = round(float(row))
        start = y if before is None or abs(before - y) <= 1 else before + (1 if y > before else -1)
        for dot in range(min(start, y), max(start, y) + 1):  # joined to the column before
            cells[dot // 4, x // 2] |= DOTS[x % 2][dot % 4]
        before = y
    return ["".join(chr(BLANK + cell) for cell in line) for line in cells]


def _columns(values: np.ndarray, n: int) -> np.ndarray:
    """The mean of each n-th of the values; where there are fewer, they are stretched."""
    finite = np.where(np.isfinite(values), values, np.nan)
    if finite.size == 0:
        return np.full(n, np.nan)
    if finite.size <= n:
        return np.asarray(finite[np.arange(n) * finite.size // n])
    edges = np.arange(n) * finite.size // n
    known = np.isfinite(finite)
    counts = np.add.reduceat(known, edges, dtype=np.int64)
    sums = np.add.reduceat(np.where(known, finite, 0.0), edges)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
