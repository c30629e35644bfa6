"""Encoding long texts and many texts: whole arrays of pieces instead of one piece after another.

For a chunk of text: find where its pieces start (`pieces.py`), look all of them up at once
(`piece_table.py`), merge the ones not seen before together (`merge_table.py`), and copy the ids
of every piece to its place. For the GPT-2 pattern only.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from phi_tokenizer.encoder import PieceEncoder
from phi_tokenizer.hash_table import Slots
from phi_tokenizer.merge_table import MergeTable
from phi_tokenizer.piece_table import PieceTable
from phi_tokenizer.pieces import CUT, END, chunks, find_pieces

__all__ = ["BulkEncoder", "spread"]

CHUNK_BYTES = 1 << 17
"""The working arrays of a chunk, some 30 bytes for each of its bytes, should fit the caches."""
MAX_PIECES = 1 << 17
MAX_POOL = 1 << 22
"""The cache is emptied at this many pieces or ids: about 40 MB."""
FEW = 24
"""So many new pieces in a chunk are merged faster one by one than together."""


class BulkEncoder:
    """Parts of text to one array of ids.

    Args:
        pieces: encodes one piece.
        merges: the same merges, for many pieces at once.
        dtype: of the ids that come out.
    """

    def __init__(self, pieces: PieceEncoder, merges: MergeTable, dtype: np.dtype[Any]) -> None:
        self._pieces = pieces
        self._merges = merges
        self._dtype = dtype
        self._together = merges.in_order and not pieces.whole_pieces_first
        self.clear()

    def clear(self) -> None:
        """Forget all pieces; called by itself when the cache is full."""
        self._table = PieceTable()
        # A piece's value: where its ids start in the pool, times 2^32, plus their number.
        self._pool = np.empty(1 << 12, self._dtype)
        self._used = 0

    def encode(self, parts: Iterable[bytes]) -> tuple[npt.NDArray[Any], Slots]:
        """Encode parts of UTF-8, each for itself.

        Returns:
            All ids in one array, and for each part where its ids end, int64.
        """
        out: list[npt.NDArray[Any]] = []
        ends: list[Slots] = []
        total = 0
        for chunk in chunks(parts, size=CHUNK_BYTES):
            ids, part_ends = self._encode_chunk(chunk)
            out.append(ids)
            ends.append(part_ends + total)
            total += ids.size
        if not out:
            return np.empty(0, self._dtype), np.empty(0, np.int64)
        if len(out) == 1:
            return out[0], ends[0]
        return np.concatenate(out), np.concatenate(ends)

    def _encode_chunk(self, chunk: bytes) -> tuple[npt.NDArray[Any], Slots]:
        table = self._table
        if table.count > MAX_PIECES or self._used > MAX_POOL or table.numbered_bytes > MAX_POOL:
            self.clear()
            table = self._table
        starts = find_pieces(chunk)
        slots, lengths, new = table.slots(chunk, starts)
        if new.size:
            table.values[slots[new]] = self._encode_new(chunk, starts[new], lengths[new])
        runs = table.values.take(slots)
        sizes = runs & 0xFFFFFFFF
        ends = np.cumsum(sizes)
        ids = self._pool.take(spread(runs >> 32, sizes, ends))
        part_ends = ends[np.frombuffer(chunk, np.uint8)[starts] == END[0]]
        return ids, part_ends

    def _encode_new(self, chunk: bytes, starts: Slots, lengths: Slots) -> Slots:
        """Encode pieces into the pool; gives their values."""
        plain = starts.size > FEW and self._together
        together = np.full(starts.size, plain)
        if plain:
            first = np.frombuffer(chunk, np.uint8)[starts]
            together &= (lengths <= self._pieces.max_cached) & (first < CUT[0])
        values = np.zeros(starts.size, np.int64)
        if plain:
            sizes = lengths[together]
            places = spread(starts[together], sizes, np.cumsum(sizes))
            tokens = self._pieces.byte_ids[np.frombuffer(chunk, np.uint8)[places]]
            ids, counts = self._merges.merge_pieces(tokens, sizes)
            values[together] = ((self._used + np.cumsum(counts) - counts) << 32) | counts
            self._append(ids)
        for index in np.flatnonzero(~together).tolist():
            start = int(starts[index])
            piece = chunk[start : start + int(lengths[index])]
            if piece not in (END, CUT):
                few = self._pieces.encode_uncached(piece)
                values[index] = (self._used << 32) | len(few)
                self._append(few)
        return values

    def _append(self, ids: Any) -> None:
        end = self._used + len(ids)
        if end > self._pool.size:
            self._pool = np.concatenate([self._pool, np.empty(end, self._dtype)])
        self._pool[self._used : end] = ids
        self._used = end


def spread(begins: Slots, sizes: Slots, ends: Slots) -> Slots:
    """The indices begin, begin + 1, ... of every run, one after the other.

    >>> spread(np.array([5, 9]), np.array([2, 3]), np.array([2, 5])).tolist()
    [5, 6, 9, 10, 11]
    """
    total = int(ends[-1]) if ends.size else 0
    return np.repeat(begins - (ends - sizes), sizes) + np.arange(total)
