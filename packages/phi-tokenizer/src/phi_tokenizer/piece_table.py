"""Every different piece once: the pieces of a text to slots, a chunk at a time.

A piece of up to 23 bytes is one, two or three 64-bit words that hold its bytes and its length.
One word is its own key in a `KeyTable`; two or three are mixed into a key and compared in full
after the look-up. Longer pieces, and two that are mixed alike, get a number from a dict as
their key. So two pieces never share a slot, whatever the hash does.
"""

import numpy as np
import numpy.typing as npt

from phi_tokenizer.hash_table import Keys, KeyTable, Slots
from phi_tokenizer.pieces import CUT, PADDING

__all__ = ["PieceTable"]

_SHORT, _LONG = 7, 23  # bytes that one word and three words hold beside the length
_MIX = tuple(np.uint64(odd) for odd in (0x9FB21C651E98DF25, 0xD6E8FEB86659FD93, 0xA24BAED4963EE407))
_LOW_BYTE = np.uint64(0xFF)
_NUMBERED = _LONG + 1  # the low byte of a key that the dict gave


class PieceTable:
    """Pieces to slots; grows as pieces come."""

    def __init__(self) -> None:
        self._table = KeyTable(np.int64, np.uint64, np.uint64, np.uint64)
        self._numbered: dict[bytes, int] = {}
        self.numbered_bytes = 0
        """The bytes of all pieces that the dict holds."""

    @property
    def values(self) -> npt.NDArray[np.int64]:
        """One int64 for each slot, the caller's own; 0 for a new piece."""
        return self._table.columns[0]

    @property
    def count(self) -> int:
        """How many different pieces there are."""
        return self._table.count

    def slots(self, text: bytes, starts: Slots) -> tuple[Slots, Slots, Slots]:
        """Find the pieces of a chunk; those not seen before are put in.

        Args:
            text: the chunk.
            starts: where its pieces start, as `find_pieces` gives them.

        Returns:
            The slot of each piece; the length in bytes of each piece; and for every piece that
            is new, the index of its first occurrence.
        """
        lengths = np.diff(starts, append=len(text))
        raw = text + bytes(PADDING)
        # The eight bytes from each offset on, as one number.
        words = np.ndarray((len(text) + 16,), "<u8", raw, 0, (1,)).copy()
        word = words.take(starts)
        size = lengths.view(np.uint64)
        keys = (word << (np.uint64(64) - (size << np.uint64(3)))) | size
        long_at = np.flatnonzero(lengths > _SHORT)
        if long_at.size:
            very_long = long_at[lengths[long_at] > _LONG]
            long_at = long_at[lengths[long_at] <= _LONG]
            triple = _triple(word, words, starts, lengths, long_at)
            keys[long_at] = _mix(*triple) | size[long_at]
            keys[very_long] = self._number(text, starts, lengths, very_long)
        slots, new = self._find_or_add(keys)
        if long_at.size:
            self._remember(long_at, triple, slots, new)
            columns = self._table.columns[1:]
            at = slots[long_at]
            same = columns[0][at] == triple[0]
            for column, part in zip(columns[1:], triple[1:], strict=True):
                same &= column[at] == part
            if not same.all():
                different = long_at[~same]
                keys[different] = self._number(text, starts, lengths, different)
                slots, more = self._find_or_add(keys)
                new = np.concatenate([new, more])
        return slots, lengths, new

    def _find_or_add(self, keys: Keys) -> tuple[Slots, Slots]:
        slots, missing = self._table.find(keys)
        if not missing.size:
            return slots, missing
        unique, first = np.unique(keys[missing], return_index=True)
        if self._table.add(unique):
            slots, _ = self._table.find(keys)
        else:
            slots[missing], _ = self._table.find(keys[missing])
        return slots, missing[first]

    def _remember(
        self, long_at: Slots, triple: tuple[Keys, Keys, Keys], slots: Slots, new: Slots
    ) -> None:
        """Keep the words of the long pieces among the new ones."""
        order = np.searchsorted(long_at, new)
        known = order < long_at.size
        order, new = order[known], new[known]
        hit = long_at[order] == new
        order, at = order[hit], slots[new[hit]]
        for column, part in zip(self._table.columns[1:], triple, strict=True):
            column[at] = part[order]

    def _number(self, text: bytes, starts: Slots, lengths: Slots, at: Slots) -> Keys:
        """Keys from the dict, for the pieces with these indices."""
        keys = np.empty(at.size, np.uint64)
        begins, ends = starts[at].tolist(), (starts[at] + lengths[at]).tolist()
        for index, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            piece = text[begin:end]
            number = self._numbered.get(piece)
            if number is None:
                number = self._numbered[piece] = len(self._numbered) + 1
                self.numbered_bytes += len(piece)
            keys[index] = (number << 8) | _NUMBERED
        return keys

    def pieces(self) -> tuple[bytes, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """All pieces, `END` and `CUT` left out.

        Returns:
            Their bytes, one after the other; the length of each; the value of each.
        """
        taken = np.flatnonzero(self._table.keys)
        keys = self._table.keys[taken]
        size = keys & _LOW_BYTE
        length = size.astype(np.int64)
        ends = (length == 1) & (keys >> np.uint64(56) >= CUT[0])
        numbered = length == _NUMBERED
        order = np.concatenate([np.flatnonzero(~ends & ~numbered), np.flatnonzero(numbered)])
        values, *words = (column[taken] for column in self._table.columns)
        short = size <= _SHORT
        words[0][short] = keys[short] >> (np.uint64(64) - (size[short] << np.uint64(3)))
        for word, first in ((words[1], 8), (words[2], 16)):
            last = (size >= first) & (size < first + 8)
            word[last] >>= np.uint64(8 * first + 64) - (size[last] << np.uint64(3))
        plain = order[: order.size - int(numbered.sum())]
        rows = np.stack([word[plain] for word in words], axis=1).astype("<u8", copy=False)
        data = rows.view(np.uint8)[np.arange(24) < length[plain, None]].tobytes()
        by_number = list(self._numbered)
        others = [by_number[(key >> 8) - 1] for key in keys[numbered].tolist()]
        lengths = np.concatenate([length[plain], np.array([len(p) for p in others], np.int64)])
        return data + b"".join(others), lengths, values[order]


def _triple(
    word: Keys, words: Keys, starts: Slots, lengths: Slots, at: Slots
) -> tuple[Keys, Keys, Keys]:
    """Three words for each piece of 8 to 23 bytes: all of its bytes, and its length."""
    size = lengths[at].view(np.uint64)
    bits = size << np.uint64(3)
    start = starts[at]
    second, third = words.take(start + 8), words.take(start + 16, mode="clip")
    # A shift by 64 or more gives 0 in numpy: no byte of the piece is in that word.
    second = np.where(size < 16, (second << (np.uint64(128) - bits)) | size, second)
    third = np.where(size < 16, np.uint64(0), (third << (np.uint64(192) - bits)) | size)
    return word[at], second, third


def _mix(first: Keys, second: Keys, third: Keys) -> Keys:
    """A key whose low byte is 0."""
    mixed = (first ^ (second * _MIX[1])) * _MIX[0]
    mixed ^= mixed >> np.uint64(32)
    mixed = (mixed ^ (third * _MIX[2])) * _MIX[1]
    mixed ^= mixed >> np.uint64(29)
    return mixed & ~_LOW_BYTE
