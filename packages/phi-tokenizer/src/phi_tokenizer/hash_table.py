"""A hash table whose operations take whole arrays: 64-bit keys to slot numbers.

Open addressing with linear probing (Knuth, The Art of Computer Programming, vol. 3, 6.4) and
multiplicative hashing. A probe is one gather for all keys that are still looking, so that a
look-up costs a few nanoseconds a key. What belongs to a key is kept in columns, arrays indexed
by slot, which move with the keys when the table grows.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["KeyTable", "Keys", "Slots"]

Keys = npt.NDArray[np.uint64]
Slots = npt.NDArray[np.int64]

MAX_PROBES = 32
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, odd
_MASK = (1 << 64) - 1


class KeyTable:
    """Keys (uint64, not 0) to slots (int64).

    At most a quarter of the slots is taken, and no key is more than `MAX_PROBES` from its
    place: where keys crowd, by chance or because someone made them so, the table is built again
    with another multiplier.

    Args:
        columns: the dtype of each column.
        bits: the table starts with 2**bits slots.

    Attributes:
        columns: one array for each dtype, 0 for a new key. Replaced when the table grows.
    """

    def __init__(self, *columns: Any, bits: int = 12) -> None:
        self.bits = bits
        self.count = 0
        self._attempts = 0
        self._dtypes = columns
        self._make()

    def _make(self) -> None:
        # Probing runs past the end instead of around it: no remainder to take.
        size = (1 << self.bits) + MAX_PROBES
        self._multiplier = np.uint64((_GOLDEN * (2 * self._attempts + 1)) & _MASK)
        self._shift = np.uint64(64 - self.bits)
        self.keys: Keys = np.zeros(size, np.uint64)
        self.columns: list[npt.NDArray[Any]] = [np.zeros(size, dtype) for dtype in self._dtypes]

    def _home(self, keys: Keys) -> Slots:
        return ((keys * self._multiplier) >> self._shift).view(np.int64)

    def find(self, keys: Keys) -> tuple[Slots, Slots]:
        """The slot of each key, and the indices of those that are not there.

        Slots of absent keys are meaningless.
        """
        slots = self._home(keys)
        found = self.keys.take(slots)
        left = np.flatnonzero(found != keys)
        found = found[left]
        missing = []
        for _ in range(MAX_PROBES):
            if not left.size:
                break
            occupied = found != 0
            if not occupied.all():
                missing.append(left[~occupied])
                left = left[occupied]
            at = slots[left] + 1
            slots[left] = at
            found = self.keys[at]
            different = found != keys[left]
            left, found = left[different], found[different]
        missing.append(left)
        return slots, np.concatenate(missing)

    def add(self, keys: Keys) -> bool:
        """Put in keys that are unique and not there yet.

        Returns:
            True if the table was built anew: slots known from before are then wrong.
        """
        if not keys.size:
            return False
        total = self.count + keys.size
        if 4 * total > 1 << self.bits:
            self._rebuild(keys, bits=int(4 * total - 1).bit_length())
        elif self._place(keys) is None:
            self._rebuild(keys, bits=self.bits)
        else:
            self.count = total
            return False
        self.count = total
        return True

    def _place(self, keys: Keys) -> Slots | None:
        """The slots that the keys take, or None if one of them finds no place."""
        slots = self._home(keys)
        left = np.arange(keys.size)
        for _ in range(MAX_PROBES):
            at, wanted = slots[left], keys[left]
            free = self.keys[at] == 0
            self.keys[at[free]] = wanted[free]  # of several that meet here, one stays
            left = left[self.keys[at] != wanted]
            if not left.size:
                return slots
            slots[left] += 1
        return None

    def _rebuild(self, new_keys: Keys, bits: int) -> None:
        """Start again with the keys there are and the new ones, some of which may be in place."""
        taken = np.flatnonzero(self.keys)
        keys, columns = self.keys[taken], [column[taken] for column in self.columns]
        everything = np.sort(np.concatenate([keys, new_keys]))  # np.unique would hash
        everything = everything[np.append(True, everything[1:] != everything[:-1])]
        while True:
            self._attempts += 1
            self.bits = bits + self._attempts // 16
            self._make()
            if self._place(everything) is not None:
                break
        slots, _ = self.find(keys)
        for column, values in zip(self.columns, columns, strict=True):
            column[slots] = values
