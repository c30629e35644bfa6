"""Encoding long texts and many texts: whole arrays of pieces instead of one piece after another.

For a chunk of text: find where its pieces start (`pieces.py`), look all of them up at once
(`piece_table.py`), merge the ones not seen before together (`merge_table.py`), and copy the ids
of every piece to its place. For the GPT-2 pattern only.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from phi_tokenizer.encoder import PieceEncoder, utf8
from phi_tokenizer.hash_table import Slots
from phi_tokenizer.merge_table import MergeTable
from phi_tokenizer.piece_table import PieceTable
from phi_tokenizer.pieces import CUT, END, chunks, find_pieces

__all__ = ["BulkEncoder", "spread"]

CHUNK_BYTES = 1 << 19
"""Enough to merge many new pieces together, little enough for the caches: the working arrays
of a chunk take some 30 bytes for each of its bytes."""
MAX_PIECES = 1 << 17
MAX_POOL = 1 << 22
"""The cache is emptied at this many pieces or ids: about 40 MB."""
FEW = 128
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
        self._n_vocab = pieces.n_vocab
        self._together = merges.in_order and not pieces.whole_pieces_first
        self.clear()

    def clear(self) -> None:
        """Forget all pieces; called by itself when the cache is full."""
        self._table = PieceTable()
        # A piece's value: where its ids start in the pool, times 2^32, plus their number.
        # The pool begins with every id once, for the ids that stand between parts.
        self._pool = np.arange(self._n_vocab, dtype=self._dtype)
        self._used = self._n_vocab

    def encode(self, text: bytes) -> npt.NDArray[Any]:
        """The ids of one text in UTF-8."""
        return self._encode([text], [-1])[0]

    def encode_bytes(self, data: bytes) -> npt.NDArray[Any]:
        """The ids of any bytes; those that are not UTF-8 are cut into pieces like `?`."""
        shape = data.decode("utf-8", "surrogateescape").encode("utf-8", "replace")
        out: list[npt.NDArray[Any]] = []
        begin = 0
        for chunk in chunks([shape], size=CHUNK_BYTES):
            end = begin + len(chunk) - 1
            out.append(self._encode_chunk(data[begin:end] + chunk[-1:], chunk, [-1], 0)[0])
            begin = end
        return np.concatenate(out)

    def encode_rows(
        self, rows: Iterable[Sequence[str | int]], append: int | None = None
    ) -> tuple[npt.NDArray[Any], Slots]:
        """Encode rows of texts and ids, the latter of special tokens.

        Args:
            rows: what `SpecialTokens.split` gives for each text.
            append: an id to put after each row.

        Returns:
            All ids in one array, and for each row where its ids end, int64.
        """
        after: list[int] = []
        row_ends: list[int] = []
        last = -1 if append is None else append

        def parts() -> Iterator[bytes]:
            for row in rows:
                text: str | None = None
                for item in row:
                    if isinstance(item, int):
                        after.append(item)
                        yield utf8(text or "")
                        text = None
                    else:
                        text = item
                after.append(last)
                row_ends.append(len(after) - 1)
                yield utf8(text or "")

        ids, part_ends = self._encode(parts(), after)
        return ids, part_ends[row_ends] if row_ends else part_ends

    def _encode(self, parts: Iterable[bytes], after: list[int]) -> tuple[npt.NDArray[Any], Slots]:
        """Encode parts; `after` holds for each the id that follows it, or -1."""
        out: list[npt.NDArray[Any]] = []
        ends: list[Slots] = []
        total = done = 0
        for chunk in chunks(parts, size=CHUNK_BYTES):
            ids, part_ends = self._encode_chunk(chunk, chunk, after, done)
            done += part_ends.size
            out.append(ids)
            ends.append(part_ends + total)
            total += ids.size
        if len(out) == 1:
            return out[0], ends[0]
        if not out:
            return np.empty(0, self._dtype), np.empty(0, np.int64)
        return np.concatenate(out), np.concatenate(ends)

    def _encode_chunk(
        self, chunk: bytes, shape: bytes, after: list[int], done: int
    ) -> tuple[npt.NDArray[Any], Slots]:
        """Encode a chunk that is cut into pieces as `shape`, of the same length, is."""
        table = self._table
        if table.count > MAX_PIECES or self._used > MAX_POOL or table.numbered_bytes > MAX_POOL:
            self.clear()
            table = self._table
        starts = find_pieces(shape)
        slots, lengths, new = table.slots(chunk, starts)
        if new.size:
            table.values[slots[new]] = self._encode_new(chunk, starts[new], lengths[new])
        runs = table.values.take(slots)
        first = np.frombuffer(shape, np.uint8).take(starts)
        runs[first >= CUT[0]] = 0
        at_ends = np.flatnonzero(first == END[0])
        follow = np.array(after[done : done + at_ends.size], np.int64)
        runs[at_ends] = np.where(follow >= 0, (follow << 32) | 1, 0)
        sizes = runs & 0xFFFFFFFF
        ends = np.cumsum(sizes)
        ids = self._pool.take(spread(runs >> 32, sizes, ends))
        return ids, ends[at_ends]

    def _encode_new(self, chunk: bytes, starts: Slots, lengths: Slots) -> Slots:
        """Encode pieces into the pool; gives their values."""
        values = np.empty(starts.size, np.int64)
        if not self._together or starts.size <= FEW:
            for index, (start, length) in enumerate(
                zip(starts.tolist(), lengths.tolist(), strict=True)
            ):
                ids = self._pieces.encode_uncached(chunk[start : start + length])
                values[index] = self._append(ids) + len(ids)
            return values
        long = lengths > self._pieces.max_short
        for some, merge in ((~long, self._merges.merge_pieces), (long, self._merges.merge_long)):
            sizes = lengths[some]
            if sizes.size:
                places = spread(starts[some], sizes, np.cumsum(sizes))
                tokens = self._pieces.byte_ids[np.frombuffer(chunk, np.uint8)[places]]
                merged, counts = merge(tokens, sizes)
                values[some] = self._append(merged) + ((np.cumsum(counts) - counts) << 32) + counts
        return values

    def _append(self, ids: Any) -> int:
        """Put ids at the end of the pool; gives where they begin, times 2^32."""
        end = self._used + len(ids)
        if end > self._pool.size:
            self._pool = np.concatenate([self._pool, np.empty(end, self._dtype)])
        begin, self._used = self._used, end
        self._pool[begin:end] = ids
        return begin << 32


def spread(begins: Slots, sizes: Slots, ends: Slots) -> Slots:
    """The indices begin, begin + 1, ... of every run, one after the other.

    >>> spread(np.array([5, 9]), np.array([2, 3]), np.array([2, 5])).tolist()
    [5, 6, 9, 10, 11]
    """
    total = int(ends[-1]) if ends.size else 0
    return np.repeat(begins - (ends - sizes), sizes) + np.arange(total)
