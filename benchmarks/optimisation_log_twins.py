"""What each entry of the inherited optimisation log replaced: the plain way, written for it.

Each gives the same result as the way that this project took, to rounding; the benchmark checks it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

__all__ = ["count_again_merges", "quadratic_encode", "unfused_mlp"]

Array = np.ndarray
Pair = tuple[int, int]


def unfused_mlp(
    x: Array, gate: Array, up: Array, down: Array, dy: Array
) -> tuple[Array, tuple[Array, Array, Array, Array]]:
    """(y, gradients of x, gate, up, down): y = down(silu(gate x) * up x), feature-major.

    Two matrices where one does, each step a new array, over all tokens at once.
    """
    g, u = gate @ x, up @ x
    s = 1 / (1 + np.exp(-g))
    silu = g * s
    hidden = silu * u
    y = down @ hidden
    dhidden = down.T @ dy
    ddown = dy @ hidden.T
    du = dhidden * silu
    dg = dhidden * u * (s + silu * (1 - s))
    dx = gate.T @ dg + up.T @ du
    return y, (dx, dg @ x.T, du @ x.T, ddown)


def quadratic_encode(pieces: Iterable[bytes], first: list[int], merges: dict) -> list[int]:
    """Each piece by itself: all pairs are looked at for every merge, nothing is remembered.

    first: the id of each byte; merges: pair -> (rank, merged id).
    """
    found = []
    for piece in pieces:
        ids = [first[byte] for byte in piece]
        while True:
            ranked = [
                (merges[pair][0], place)
                for place, pair in enumerate(pairwise(ids))
                if pair in merges
            ]
            if not ranked:
                break
            _, place = min(ranked)
            ids[place : place + 2] = [merges[ids[place], ids[place + 1]][1]]
        found += ids
    return found


def count_again_merges(pieces: Counter[bytes], first: list[int], number: int) -> list[Pair]:
    """BPE as it is defined: all pairs are counted again for every merge."""
    words = [([first[byte] for byte in piece], count) for piece, count in pieces.items()]
    merges: list[Pair] = []
    while len(merges) < number:
        counts: Counter[Pair] = Counter()
        for ids, count in words:
            for pair in pairwise(ids):
                counts[pair] += count
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        new = 255 + len(merges)
        for ids, _ in words:
            place = 0
            while place < len(ids) - 1:
                if (ids[place], ids[place + 1]) == best:
                    ids[place : place + 2] = [new]
                place += 1
    return merges
