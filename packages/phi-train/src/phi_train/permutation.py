"""An order of the numbers below n that needs no list of them: each is found on its own.

A number is written with two digits, which are changed in turn, each by a hash of the other: a
Feistel network on mixed radices, a permutation of a little more than n numbers. One that ends
at n or above is sent through again until it is below (cycle walking).

References: Black and Rogaway (2002), "Ciphers with arbitrary finite domains"; the hash is the
finaliser of SplitMix64, Steele, Lea and Flood (2014).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["mixed", "permuted"]

U64 = NDArray[np.uint64]

ROUNDS = 6  # with 4, permutations of very few numbers are not equally likely
GOLDEN = 0x9E3779B97F4A7C15


def permuted(
    places: NDArray[Any], n: int, *, seed: int, number: NDArray[Any] | int
) -> NDArray[np.int64]:
    """What stands at `places` in permutation `number` of 0 .. n - 1.

    places, number: integers below n, and any from 0, of one shape [B]. The result is [B].
    """
    x = np.array(places, np.uint64, ndmin=1)
    keys = mixed(seed, np.broadcast_to(np.asarray(number), x.shape))
    width = math.isqrt(n - 1) + 1
    height = -(-n // width)
    x = _network(x, keys, width, height)
    while (outside := x >= n).any():
        x[outside] = _network(x[outside], keys[outside], width, height)
    return x.astype(np.int64)


def _network(x: U64, keys: U64, width: int, height: int) -> U64:
    """One permutation of 0 .. width * height - 1 for each key."""
    columns, rows = np.uint64(width), np.uint64(height)
    high, low = np.divmod(x, columns)
    round_keys = _mix(keys + np.arange(2 * ROUNDS, dtype=np.uint64)[:, None])
    for for_high, for_low in zip(round_keys[::2], round_keys[1::2], strict=True):
        high = (high + _mix(low ^ for_high) % rows) % rows
        low = (low + _mix(high ^ for_low) % columns) % columns
    return high * columns + low


def mixed(seed: int, number: NDArray[Any]) -> U64:
    """A hash of (seed, number), one for each number; seed is below 2^64."""
    return _mix(_mix(np.full(number.shape, seed, np.uint64)) + number.astype(np.uint64))


def _mix(x: U64) -> U64:
    x = x + np.uint64(GOLDEN)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
