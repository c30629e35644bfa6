"""Parameters as a few flat stretches of memory that share their hyper-parameters.

A model that keeps its parameters in one buffer (phi_model does) offers `flat`, the buffer, and
`ranges`, name -> (start, end): neighbours with equal rules then become one stretch. A plain dict
of arrays works as well, a stretch for each array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from phi_optim.errors import StateError

__all__ = [
    "BLOCK",
    "Allocator",
    "DecayRule",
    "Rule",
    "Segment",
    "blocks",
    "flat_views",
    "segments",
    "share_of",
]

Array = NDArray[Any]
Allocator = Callable[[int, DTypeLike], Array]
DecayRule = Callable[[str, Array], bool]

BLOCK = 32 * 1024  # elements: a block of parameter, gradient, moments and scratch stays in cache


@dataclass(frozen=True)
class Rule:
    """The hyper-parameters that may differ between parameters."""

    weight_decay: float
    rate: float = 1.0  # multiplies the learning rate


@dataclass(frozen=True)
class Segment:
    """Elements start..end of the flat buffer `buffer`, under one rule."""

    buffer: str  # "" for the one flat buffer, else the array's name
    start: int
    end: int
    rule: Rule


def flat_views(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """buffer name -> vector view of all its elements.

    Raises StateError for an array that cannot be seen as a vector without a copy.
    """
    flat = getattr(arrays, "flat", None)
    if isinstance(flat, np.ndarray):
        return {"": flat}
    for name, array in arrays.items():
        if not array.flags.c_contiguous:
            raise StateError(f"{name} is not C-contiguous; pass numpy.ascontiguousarray({name})")
    return {name: array.reshape(-1) for name, array in arrays.items()}


def segments(parameters: Mapping[str, Array], rules: Mapping[str, Rule]) -> list[Segment]:
    """The stretches of `parameters`, neighbours with the same rule joined."""
    ranges: Mapping[str, tuple[int, int]] | None = getattr(parameters, "ranges", None)
    if ranges is None:
        return [Segment(name, 0, value.size, rules[name]) for name, value in parameters.items()]
    joined: list[Segment] = []
    for name in sorted(ranges, key=lambda name: ranges[name]):
        start, end = ranges[name]
        if joined and joined[-1].rule == rules[name]:
            start = joined.pop().start
        joined.append(Segment("", start, end, rules[name]))
    return joined


def share_of(stretches: list[Segment], share: int, shares: int) -> list[Segment]:
    """The part of all elements that worker `share` of `shares` updates: equal parts, in order."""
    total = sum(segment.end - segment.start for segment in stretches)
    first, end = total * share // shares, total * (share + 1) // shares
    parts, before = [], 0
    for segment in stretches:
        size = segment.end - segment.start
        start, stop = max(first - before, 0), min(end - before, size)
        if start < stop:
            parts.append(replace(segment, start=segment.start + start, end=segment.start + stop))
        before += size
    return parts


def blocks(segment: Segment) -> Iterator[slice]:
    """The segment in pieces of at most BLOCK elements."""
    for start in range(segment.start, segment.end, BLOCK):
        yield slice(start, min(start + BLOCK, segment.end))
