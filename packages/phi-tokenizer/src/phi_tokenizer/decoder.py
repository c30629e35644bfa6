"""Token ids back to bytes.

For many ids at once every token is written as one 64-bit word, at the place where its bytes
begin. A short token's word runs on into the next place, and the next token, written later,
covers that: numpy assigns in the order of the indices. What long tokens have beyond eight bytes
is put in afterwards.
"""

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from phi_tokenizer.bulk import spread
from phi_tokenizer.errors import TokenIdError

__all__ = ["Decoder"]

_FEW = 64
_WORD = 8
_BLOCK = 1 << 15  # ids at a time: the working arrays stay in the cache


class Decoder:
    """Joins the bytes of tokens.

    Args:
        tokens: the bytes of each id, None where an id stands for nothing.

    Attributes:
        lengths: bytes of each token, int32; 0 where an id stands for nothing.
    """

    def __init__(self, tokens: Sequence[bytes | None]) -> None:
        self._tokens = tokens
        self.lengths = np.array([len(token or b"") for token in tokens], np.int32)
        self._tables: tuple[npt.NDArray[Any], ...] | None = None
        self._holes = any(token is None for token in tokens)

    def token(self, token_id: int) -> bytes:
        """The bytes of one id.

        Raises:
            TokenIdError: there is no such id.
        """
        try:
            token = self._tokens[token_id] if token_id >= 0 else None
        except (IndexError, TypeError):
            token = None
        if token is None:
            raise TokenIdError(
                f"token id {token_id!r} is not in the vocabulary; ids go from 0 to "
                f"{len(self._tokens) - 1}"
            )
        return token

    def join(self, ids: Iterable[int] | npt.NDArray[np.integer[Any]]) -> bytes:
        """The bytes of all ids, one after the other.

        Raises:
            TokenIdError: an id is not in the vocabulary, or is not a whole number.
        """
        if not isinstance(ids, np.ndarray):
            ids = ids if isinstance(ids, (list, tuple)) else list(ids)
            if len(ids) < _FEW:
                return b"".join(map(self.token, ids))
            try:
                # Twice as fast as np.fromiter; refuses negative numbers.
                ids = np.frombuffer(array("I", ids), np.uintc)
            except (OverflowError, TypeError, ValueError):
                return b"".join(map(self.token, ids))  # names the one that is wrong
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            if not ids.size:
                return b""
            raise TokenIdError(
                f"ids must be whole numbers in one dimension, not {ids.dtype} of shape {ids.shape}"
            )
        self._check(ids)
        return b"".join(
            self._join_block(ids[begin : begin + _BLOCK]) for begin in range(0, ids.size, _BLOCK)
        )

    def _check(self, ids: npt.NDArray[Any]) -> None:
        if not ids.size:
            return
        for extreme in (ids.min(), ids.max()):
            self.token(int(extreme))
        if self._holes:
            lengths = self.lengths[ids]
            if not lengths.all():
                self.token(int(ids[np.argmin(lengths)]))

    def _join_block(self, ids: npt.NDArray[Any]) -> bytes:
        if self._tables is None:
            self._tables = self._make_tables()
        words, lengths, blob, offsets = self._tables
        sizes = lengths.take(ids)
        ends = np.cumsum(sizes)
        total = int(ends[-1])
        out = np.empty(total + _WORD, np.uint8)
        begins = ends - sizes
        # Words at any byte: the array is not aligned, and its elements overlap.
        np.ndarray((total + 1,), np.uint64, out.data, 0, (1,))[begins] = words.take(ids)
        long = np.flatnonzero(sizes > _WORD)
        if long.size:
            rest = sizes[long] - _WORD
            rest_ends = np.cumsum(rest)
            source = spread(offsets.take(ids[long]) + _WORD, rest, rest_ends)
            out[spread(begins[long] + _WORD, rest, rest_ends)] = blob.take(source)
        return out[:total].tobytes()

    def _make_tables(self) -> tuple[npt.NDArray[Any], ...]:
        tokens = [token or b"" for token in self._tokens]
        words = np.frombuffer(b"".join(token[:_WORD].ljust(_WORD, b"\0") for token in tokens), "u8")
        blob = np.frombuffer(b"".join(tokens), np.uint8)
        lengths = self.lengths.astype(np.int64)
        return words, lengths, blob, np.cumsum(lengths) - lengths
