"""Pieces to token ids: merges applied in the order in which they were learned."""

from collections.abc import Iterable
from itertools import pairwise

from phi_tokenizer.vocabulary import Vocabulary

__all__ = ["Encoder"]


class Encoder:
    """Applies the merges of a vocabulary to the bytes of a piece."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ids = vocabulary.ids
        self._whole = vocabulary.whole_pieces_first
        self._bytes = [vocabulary.ids[bytes([byte])] for byte in range(256)]
        self._ranks = {
            pair: (rank, new)
            for rank, (pair, new) in enumerate(
                zip(vocabulary.merges, vocabulary.merged, strict=True)
            )
        }
        self._cache: dict[bytes, list[int]] = {}

    def encode_pieces(self, pieces: Iterable[bytes]) -> list[int]:
        """The ids of all pieces, one after the other."""
        out: list[int] = []
        for piece in pieces:
            ids = self._cache.get(piece)
            if ids is None:
                ids = self._encode(piece)
                if len(piece) < 32 and len(self._cache) < 65536:
                    self._cache[piece] = ids
            out += ids
        return out

    def _encode(self, piece: bytes) -> list[int]:
        if self._whole and piece in self._ids:
            return [self._ids[piece]]
        ids = [self._bytes[byte] for byte in piece]
        while True:
            best = min(
                (self._ranks[pair] for pair in pairwise(ids) if pair in self._ranks),
                default=None,
            )
            if best is None:
                return ids
            rank, new = best
            out: list[int] = []
            index = 0
            while index < len(ids):
                found = (
                    self._ranks.get((ids[index], ids[index + 1])) if index + 1 < len(ids) else None
                )
                if found is not None and found[0] == rank:
                    out.append(new)
                    index += 2
                else:
                    out.append(ids[index])
                    index += 1
            ids = out
