"""The merges of a vocabulary, looked up and applied for whole arrays at once.

Merging by rank: in each piece the pair with the lowest rank is replaced, everywhere from the
left, until no pair is left that has a rank (Sennrich et al. 2016). Pieces do not see each other,
so one round merges in all of them together.

Merges of neighbouring ranks that cannot touch each other form a *wave*: no merge of it uses a
token that another one makes, and no token is the right part of one and the left part of
another. Applying a wave at once gives what applying its merges one by one gives, in fewer
rounds; a long piece without a single space needs a step for each wave, not for each merge.
"""

import heapq
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from phi_tokenizer.hash_table import Keys, KeyTable
from phi_tokenizer.vocabulary import Vocabulary

__all__ = ["Ids", "Index", "MergeTable", "every_second"]

Ids = npt.NDArray[np.int32]
Index = npt.NDArray[np.int64]

_NEVER = np.int32(2**31 - 1)


class MergeTable:
    """Pairs of ids to waves and to the ids they merge into.

    Attributes:
        in_order: no merge uses a token that only it or a later one makes. Any trained vocabulary
            is so; for others, merging many pairs at once would not be exact.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        merges = np.array(vocabulary.merges, np.int64).reshape(-1, 2)
        waves, self.in_order = _waves(vocabulary.merges, vocabulary.merged)
        keys = _pair_keys(merges[:, 0], merges[:, 1])
        self._table = KeyTable(np.int32, np.int32)
        self._table.add(keys)
        at, _ = self._table.find(keys)
        self._waves, self._merged = self._table.columns
        self._waves[at] = waves
        self._merged[at] = vocabulary.merged

    def look_up(self, left: Ids, right: Ids) -> tuple[Ids, Ids]:
        """The wave of each pair (2^31 - 1 where there is none), and the id it merges into."""
        slots, missing = self._table.find(_pair_keys(left, right))
        waves = self._waves.take(slots)
        waves[missing] = _NEVER
        return waves, self._merged.take(slots)

    def merge_pieces(self, tokens: Ids, lengths: Index) -> tuple[Ids, Index]:
        """Merge in many pieces together; the vocabulary must be `in_order`.

        Args:
            tokens: the ids of the bytes of all pieces, one piece after the other.
            lengths: how many each piece has, at least 1. The time grows with the longest piece.

        Returns:
            The ids of all pieces, and how many each has.
        """
        tokens = tokens.copy()
        owner = np.repeat(np.arange(lengths.size), lengths)
        waves, merged = self.look_up(tokens, np.append(tokens[1:], 0))
        waves[np.cumsum(lengths) - 1] = _NEVER
        done: list[tuple[Ids, Index]] = []
        while tokens.size:
            first = np.flatnonzero(np.diff(owner, prepend=-1))
            sizes = np.diff(first, append=tokens.size)
            lowest = np.minimum.reduceat(waves, first)
            keep = np.repeat(lowest != _NEVER, sizes)
            done.append((tokens[~keep], owner[~keep]))
            hits = every_second(np.flatnonzero((waves == np.repeat(lowest, sizes)) & keep))
            tokens[hits] = merged[hits]
            waves[hits] = _NEVER
            keep[hits + 1] = False
            tokens, owner, waves, merged = tokens[keep], owner[keep], waves[keep], merged[keep]
            # Where the merged tokens are now, and the pairs on both sides of them.
            at = (np.cumsum(keep) - 1)[hits]
            pairs = np.concatenate([at[at > 0] - 1, at[at < tokens.size - 1]])
            pairs = pairs[owner[pairs] == owner[pairs + 1]]
            waves[pairs], merged[pairs] = self.look_up(tokens[pairs], tokens[pairs + 1])
        all_owner = np.concatenate([part for _, part in done])
        order = np.argsort(all_owner, kind="stable")
        out = np.concatenate([part for part, _ in done])[order]
        return out, np.bincount(all_owner, minlength=lengths.size)

    def merge_long(self, tokens: Ids, lengths: Index) -> tuple[Ids, Index]:
        """The same for long pieces: the time grows with the tokens and the number of waves.

        The tokens are a linked list in arrays, with a gap after each piece; the places of each
        wave wait in a bucket. A step takes the lowest wave, at all its places at once.
        """
        size = tokens.size + lengths.size
        gaps = np.cumsum(lengths + 1) - 1
        inside = np.ones(size, np.bool_)
        inside[gaps] = False
        token = np.full(size, -1, np.int32)
        token[inside] = tokens
        # Before the first place comes the last one, which is a gap, and after a gap nothing.
        after = np.minimum(np.arange(1, size + 1), size - 1)
        before = np.arange(-1, size - 1)
        wave, merged = self.look_up(token, np.append(token[1:], -1))
        buckets: dict[int, list[Index]] = {}
        queue: list[int] = []
        _fill(buckets, queue, wave, np.arange(size))
        while queue:
            lowest = heapq.heappop(queue)
            at = _ascending(np.concatenate(buckets.pop(lowest)))
            at = at[wave[at] == lowest]
            if not at.size:
                continue
            at = every_second(at, after)
            gone = after[at]
            token[at] = merged[at]
            token[gone] = -1
            wave[gone] = _NEVER
            beyond = after[gone]
            after[at] = beyond
            before[beyond] = at
            pairs = np.concatenate([before[at], at])
            waves, into = self.look_up(token[pairs], token[after[pairs]])
            wave[pairs], merged[pairs] = waves, into
            _fill(buckets, queue, waves, pairs)
        left_over = token >= 0
        owner = np.repeat(np.arange(lengths.size), lengths + 1)
        return token[left_over], np.bincount(owner[left_over], minlength=lengths.size)


def _ascending(places: Index) -> Index:
    """Sorted, each once. (np.unique hashes, which takes seconds for numbers in a row.)"""
    places = np.sort(places)
    unique: Index = places[np.append(True, places[1:] != places[:-1])]
    return unique


def _fill(buckets: dict[int, list[Index]], queue: list[int], waves: Ids, places: Index) -> None:
    """Put places into the bucket of their wave."""
    some = waves != _NEVER
    waves, places = waves[some], places[some]
    order = np.argsort(waves, kind="stable")
    waves, places = waves[order], places[order]
    bounds = [0, *(np.flatnonzero(np.diff(waves)) + 1).tolist(), waves.size]
    for begin, end in pairwise(bounds):
        if begin == end:
            continue
        wave = int(waves[begin])
        if wave in buckets:
            buckets[wave].append(places[begin:end])
        else:
            buckets[wave] = [places[begin:end]]
            heapq.heappush(queue, wave)


def every_second(places: Index, after: npt.NDArray[np.integer] | None = None) -> Index:
    """Of places that overlap (`aaaa` holds `aa` three times), those that count from the left.

    Args:
        places: ascending.
        after: the place that follows each place; the next number if None.

    >>> every_second(np.array([1, 2, 3, 7])).tolist()
    [1, 3, 7]
    """
    following = places[:-1] + 1 if after is None else after[places[:-1]]
    touching = following == places[1:]
    if not touching.any():  # the usual case
        return places
    index = np.arange(places.size)
    starts = np.where(np.append(False, touching), 0, index)
    chosen: Index = places[(index - np.maximum.accumulate(starts)) % 2 == 0]
    return chosen


def _pair_keys(left: npt.NDArray[np.integer], right: npt.NDArray[np.integer]) -> Keys:
    """One number, not 0, for each pair of ids; an id may be -1, which no merge holds."""
    return ((left.astype(np.int64) << 32) + (right.astype(np.int64) + 2)).view(np.uint64)


def _waves(merges: Sequence[tuple[int, int]], merged: Sequence[int]) -> tuple[list[int], bool]:
    """The wave of each merge, and whether they are in order."""
    waves: list[int] = []
    wave, lefts, rights, made = 0, set[int](), set[int](), set[int]()
    used: set[int] = set()
    in_order = True
    for (a, b), new in zip(merges, merged, strict=True):
        if a in rights or b in lefts or a in made or b in made:
            wave += 1
            lefts, rights, made = set(), set(), set()
        lefts.add(a)
        rights.add(b)
        made.add(new)
        used.update((a, b))
        in_order &= new not in used
        waves.append(wave)
    return waves, in_order
