"""A random number for a seed and a position, without a generator to keep: Philox 4x64-10.

Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3", Philox with four words of 64
bits and ten rounds. The first number of numpy's generator with the key (seed, position), which
takes longer to make than to use:

>>> import numpy as np
>>> key = np.array([5, 7], np.uint64)
>>> float(np.random.Generator(np.random.Philox(key=key)).random()) == uniform(5, 7)
True
"""

from __future__ import annotations

__all__ = ["uniform"]

ROUNDS = 10
MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
WEYL = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B  # added to the key after each round
WORD = 2**64 - 1


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) with 53 bits; both arguments of 64 bits."""
    a, b, c, d = 1, 0, 0, 0  # the counter of the first number
    for _ in range(ROUNDS):
        first, second = MULTIPLIERS[0] * a, MULTIPLIERS[1] * c
        a, b, c, d = (
            second >> 64 ^ b ^ seed,
            second & WORD,
            first >> 64 ^ d ^ position,
            first & WORD,
        )
        seed, position = seed + WEYL[0] & WORD, position + WEYL[1] & WORD
    return (a >> 11) * 2.0**-53
