"""Parameters as a few flat stretches of memory that share their hyper-parameters.

A model that keeps its parameters in one buffer (phi_model does) offers `flat`, the buffer, and
`ranges`, name -> (start, end): neighbours with equal rules then become one stretch. A plain dict
of arrays works as well, a stretch for each array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from phi_optim.errors import StateError

__all__ = [
    "BLOCK",
    "Allocator",
    "Block",
    "DecayRule",
    "Rule",
    "Segment",
    "block_views",
    "blocks",
    "flat_views",
    "load_arrays",
    "scalars",
    "segments",
    "share_of",
]

Array = NDArray[Any]
Allocator = Callable[[int, DTypeLike], Array]
DecayRule = Callable[[str, Array], bool]
Block = tuple[Array, ...]
"""What an update works on at a time: equally long views of gradient, value, state, scratch."""

# elements: what two neighbouring operations share stays in the second-level cache, and a call into
# numpy, half a microsecond, costs little beside a block
BLOCK = 128 * 1024
LINE = 64  # elements, of any type a whole number of cache lines


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
    """The stretches of the parameters that have a rule, neighbours with the same one joined."""
    ranges: Mapping[str, tuple[int, int]] | None = getattr(parameters, "ranges", None)
    if ranges is None:
        return [Segment(name, 0, parameters[name].size, rule) for name, rule in rules.items()]
    joined: list[Segment] = []
    apart = True  # something without a rule lies between this and the one before
    for name in sorted(ranges, key=lambda name: ranges[name]):
        if name not in rules:
            apart = True
            continue
        start, end = ranges[name]
        if joined and not apart and joined[-1].rule == rules[name]:
            start = joined.pop().start
        joined.append(Segment("", start, end, rules[name]))
        apart = False
    return joined


def share_of(stretches: list[Segment], share: int, shares: int) -> list[Segment]:
    """The part of all elements that worker `share` of `shares` updates: equal parts, in order, cut
    where a cache line of the first stretch ends.
    """
    total = sum(segment.end - segment.start for segment in stretches)
    first, end = (total * i // shares // LINE * LINE for i in (share, share + 1))
    end = total if share == shares - 1 else end
    parts, before = [], 0
    for segment in stretches:
        size = segment.end - segment.start
        start, stop = max(first - before, 0), min(end - before, size)
        if start < stop:
            parts.append(replace(segment, start=segment.start + start, end=segment.start + stop))
        before += size
    return parts


def blocks(start: int, end: int) -> Iterator[slice]:
    """start..end in pieces of at most BLOCK elements."""
    for first in range(start, end, BLOCK):
        yield slice(first, min(first + BLOCK, end))


def block_views(arrays: Sequence[Array], start: int, end: int, scratch: Array) -> list[Block]:
    """Elements start..end of the vectors `arrays`, then the rows of scratch [rows, BLOCK or less]:
    block by block.
    """
    return [
        (*(array[block] for array in arrays), *scratch[:, : block.stop - block.start])
        for block in blocks(start, end)
    ]


def scalars(dtype: DTypeLike, *values: float) -> list[Array]:
    """Numbers as arrays without a dimension: operations take them at half the cost of floats."""
    return [np.array(value, dtype) for value in values]


def load_arrays(own: Mapping[str, Array], state: Mapping[str, Array], what: str) -> None:
    """Copies a saved state into the arrays of `own`; raises StateError when it does not fit."""
    odd = own.keys() ^ state.keys() or {
        name
        for name, array in own.items()
        if (array.shape, array.dtype) != (state[name].shape, state[name].dtype)
    }
    if odd:
        raise StateError(
            f"this {what} state was saved for other parameters or by another optimiser: "
            f"{min(odd)!r} does not fit"
        )
    for name, array in own.items():
        array[...] = state[name]
