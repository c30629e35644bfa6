"""Which worker does what in a step of Muon: whole matrices, levelled with the other elements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any

from numpy.typing import NDArray

from phi_optim.errors import HyperparameterError
from phi_optim.newton_schulz import newton_schulz_cost
from phi_optim.segments import Rule, Segment

__all__ = ["Matrix", "Plan", "find_matrices", "plan_shares"]

Array = NDArray[Any]

ELEMENT_COST = 200  # of AdamW's update, in a product's operations of equal time


@dataclass(frozen=True)
class Matrix:
    """Some rows of a parameter, orthogonalised by themselves."""

    segment: Segment
    shape: tuple[int, int]


# for each share its matrices, and pieces (number, start, end) of the other stretches
Plan = list[tuple[list[Matrix], list[tuple[int, int, int]]]]


def find_matrices(
    parameters: Mapping[str, Array],
    names: Sequence[str],
    rules: Mapping[str, Rule],
    split: Mapping[str, int],
) -> list[Matrix]:
    """The matrices of `names`, in parts where `split` says so."""
    ranges: Mapping[str, tuple[int, int]] | None = getattr(parameters, "ranges", None)
    found = []
    for name in names:
        rows, columns = parameters[name].shape
        buffer, first = (name, 0) if ranges is None else ("", ranges[name][0])
        parts = next((n for pattern, n in split.items() if fnmatchcase(name, pattern)), 1)
        if parts < 1 or rows % parts:
            raise HyperparameterError(
                f"{name} has {rows} rows, which cannot be split into {parts} equal matrices"
            )
        size = rows * columns // parts
        whole = Segment(buffer, first, first + size, rules[name])
        for i in range(parts if size else 0):
            part = replace(whole, start=first + i * size, end=first + (i + 1) * size)
            found.append(Matrix(part, (rows // parts, columns)))
    return found


def plan_shares(
    matrices: Sequence[Matrix], rest: Sequence[Segment], shares: int, steps: int
) -> Plan:
    """For each share its matrices, and pieces (number, start, end) of the rest.

    Dear matrices first, each to the share with the least so far; the rest, which can be cut
    anywhere, then levels the shares.
    """
    loads = [0.0] * shares
    own: list[list[Matrix]] = [[] for _ in range(shares)]
    costs = [newton_schulz_cost(m.shape, steps) for m in matrices]
    for i in sorted(range(len(matrices)), key=lambda i: -costs[i]):
        least = loads.index(min(loads))
        own[least].append(matrices[i])
        loads[least] += costs[i]
    sizes = _level(loads, sum(s.end - s.start for s in rest))
    pieces = []
    first = 0
    for size in sizes:
        pieces.append(_pieces(rest, first, first + size))
        first += size
    return list(zip(own, pieces, strict=True))


def _level(loads: Sequence[float], elements: int) -> list[int]:
    """How many of `elements` each share gets so that all end as level as can be."""
    level, left = 0.0, float(elements * ELEMENT_COST)
    ordered = sorted(loads)
    for i, load in enumerate(ordered):  # water that rises over the lowest first
        above = ordered[i + 1] if i + 1 < len(ordered) else math.inf
        level = load + left / (i + 1)
        if level <= above:
            break
        left -= (above - load) * (i + 1)
    ends, wanted = [0], 0.0
    for load in loads:
        wanted += max(0.0, level - load) / ELEMENT_COST
        ends.append(min(elements, round(wanted)))
    ends[-1] = elements
    return [end - start for start, end in pairwise(ends)]


def _pieces(rest: Sequence[Segment], first: int, end: int) -> list[tuple[int, int, int]]:
    """Elements first..end of all of `rest` together, as (number, start, end) within each."""
    found, before = [], 0
    for number, segment in enumerate(rest):
        size = segment.end - segment.start
        start, stop = max(first - before, 0), min(end - before, size)
        if start < stop:
            found.append((number, start, stop))
        before += size
    return found
