"""Pieces to token ids, one piece at a time.

`PieceEncoder` applies the merges of a vocabulary to one piece. `TextEncoder` does short texts:
it looks whole words up in a dict, for which a sentence needs a microsecond or two.
"""

import heapq
from collections.abc import Callable
from itertools import chain

import numpy as np

from phi_tokenizer.errors import EncodingError
from phi_tokenizer.merge_table import MergeTable
from phi_tokenizer.unicode_table import SPACES, parse_ranges
from phi_tokenizer.vocabulary import Vocabulary

__all__ = ["PieceEncoder", "TextEncoder", "utf8"]

_NO_RANK = 1 << 62


def utf8(text: str) -> bytes:
    """The bytes of a text.

    Raises:
        EncodingError: it holds a lone surrogate, or is no text at all.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise EncodingError(
            f"the text holds a lone surrogate ({text[error.start]!r} at character "
            f"{error.start}); it is not valid Unicode, remove it"
        ) from None
    except AttributeError:
        raise EncodingError(f"a text must be a str, not {type(text).__name__}") from None


class PieceEncoder:
    """Applies the merges to the bytes of one piece.

    Attributes:
        max_cached: a piece of more bytes is not worth remembering.
        max_short: a piece of more bytes is long; merging it calls for other ways.
    """

    max_cached = 64
    max_short = 64

    def __init__(self, vocabulary: Vocabulary, merges: MergeTable) -> None:
        self.n_vocab = len(vocabulary.tokens)
        self.whole_pieces_first = vocabulary.whole_pieces_first
        self.byte_ids = np.array([vocabulary.ids[bytes([byte])] for byte in range(256)], np.int32)
        self._ids = vocabulary.ids
        self._bytes = self.byte_ids.tolist()
        self._merges = merges
        self._ranks = {
            pair: (rank, new)
            for rank, (pair, new) in enumerate(
                zip(vocabulary.merges, vocabulary.merged, strict=True)
            )
        }
        self._cache: dict[bytes, list[int]] = {}

    def encode(self, piece: bytes) -> list[int]:
        """The ids of a piece; short ones are remembered. Not to be changed by the caller."""
        ids = self._cache.get(piece)
        if ids is None:
            ids = self.encode_uncached(piece)
            if len(piece) <= self.max_cached:
                if len(self._cache) >= 1 << 16:
                    self._cache.clear()
                self._cache[piece] = ids
        return ids

    def encode_uncached(self, piece: bytes) -> list[int]:
        """The ids of a piece."""
        if self.whole_pieces_first and piece in self._ids:
            return [self._ids[piece]]
        if len(piece) <= self.max_short:
            return self._merge_short([self._bytes[byte] for byte in piece])
        if self._merges.in_order:
            tokens = self.byte_ids[np.frombuffer(piece, np.uint8)]
            merged, _ = self._merges.merge_long(tokens, np.array([tokens.size]))
            ids: list[int] = merged.tolist()
            return ids
        return self._merge_exact([self._bytes[byte] for byte in piece])

    def _merge_short(self, ids: list[int]) -> list[int]:
        """Merge the leftmost pair of the lowest rank until there is none."""
        ranks = self._ranks
        while len(ids) > 1:
            best, place, merged = _NO_RANK, 0, 0
            left = ids[0]
            for index in range(1, len(ids)):
                right = ids[index]
                found = ranks.get((left, right))
                if found is not None and found[0] < best:
                    best, merged = found
                    place = index
                left = right
            if best == _NO_RANK:
                break
            ids[place - 1 : place + 1] = [merged]
        return ids

    def _merge_exact(self, ids: list[int]) -> list[int]:
        """The same with a heap of (rank, place): for any merges and any length."""
        size = len(ids)
        after = list(range(1, size + 1))
        before = list(range(-1, size - 1))
        heap: list[tuple[int, int, int, int]] = []

        def push(left: int) -> None:
            right = after[left]
            if right < size and (found := self._ranks.get((ids[left], ids[right]))):
                heapq.heappush(heap, (found[0], left, ids[left], ids[right]))

        for place in range(size):
            push(place)
        while heap:
            _, left, a, b = heapq.heappop(heap)
            right = after[left]
            if ids[left] != a or right >= size or ids[right] != b:
                continue
            ids[left], ids[right] = self._ranks[a, b][1], -1
            after[left] = after[right]
            if after[left] < size:
                before[after[left]] = left
            push(left)
            if before[left] >= 0:
                push(before[left])
        return [token for token in ids if token >= 0]


class _NotByWords(Exception):
    """A text in which a blank is followed by white space."""


class _Words(dict[str, list[int]]):
    """A word, and the blank before it, to its ids; computed when it is first asked for."""

    def __init__(self, encode: Callable[[str], list[int]], blank: str) -> None:
        super().__init__()
        self._encode = encode
        self._blank = blank

    def __missing__(self, word: str) -> list[int]:
        if self._blank and (not word or word[0] in _SPACES):
            raise _NotByWords
        ids = self._encode(self._blank + word)
        if len(word) <= 64:
            if len(self) >= 1 << 16:
                self.clear()
            self[word] = ids
        return ids


_SPACES = frozenset(
    chr(point) for first, last in parse_ranges(SPACES) for point in range(first, last + 1)
)


class TextEncoder:
    """Short texts to ids.

    With the GPT-2 pattern, a blank that is followed by anything but white space starts a piece,
    and what comes before it splits as if the text ended there. So such a text can be taken word
    by word; any other goes through the splitter.

    Args:
        split: a text to its pieces.
        pieces: encodes one piece.
        by_words: the pattern is GPT-2's.
    """

    def __init__(
        self, split: Callable[[str], list[str]], pieces: PieceEncoder, *, by_words: bool
    ) -> None:
        self._split = split
        self._pieces = pieces
        self._by_words = by_words
        self._first = _Words(self._by_pieces, "")
        self._rest = _Words(self._by_pieces, " ")

    def encode(self, text: str) -> list[int]:
        """The ids of a text; special tokens in it are ordinary text."""
        if self._by_words:
            words = text.split(" ")
            try:
                ids = self._first[words[0]].copy()
                words[0] = ""
                ids += chain.from_iterable(map(self._rest.__getitem__, words[1:]))
                return ids
            except _NotByWords:
                pass
        return self._by_pieces(text)

    def encode_escaped(self, text: str) -> list[int]:
        """The ids of a text in which surrogates stand for bytes that are not UTF-8."""
        encode = self._pieces.encode
        return [
            token
            for piece in self._split(text)
            for token in encode(piece.encode("utf-8", "surrogateescape"))
        ]

    def _by_pieces(self, text: str) -> list[int]:
        encode = self._pieces.encode
        return [token for piece in self._split(text) for token in encode(utf8(piece))]
