"""Learning the merges of a byte-level BPE from counted pieces.

Sennrich, Haddow and Birch (2016), "Neural machine translation of rare words with subword
units", arXiv:1508.07909, algorithm 1, over bytes instead of characters. The order is the one of
HF tokenizers: the pair with the highest count first, ties by ascending (id of the left token,
id of the right one).

Four observations make it fast:

1. A pair comes into being with the newer of its two tokens; after that its count only falls.
   So a count in the heap is an upper bound, and is counted again only when it comes to the top.
2. Then pairs below some count cannot be merged before all pairs above it. Only pairs of at least
   `threshold` are followed; when they are used up, the threshold falls and all pairs are
   counted afresh.
3. The pieces lie in one array, linked by index, with a gap between two pieces. A merge is a few
   operations on the array of all places where it happens.
4. Merges that follow one another often have nothing to do with each other. A batch of them is
   done at once if no pair of it can change the count of another, and if no pair that it creates
   is frequent enough to come in between.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from phi_tokenizer.merge_table import every_second
from phi_tokenizer.vocabulary import BYTE_ORDER

__all__ = ["train_merges"]

Places = npt.NDArray[np.int64]

_GAP = -1  # between two pieces, and where a token was merged away
_FALL = 6  # the threshold falls by this factor, or to 1
_BINS = 18  # 2^18 bins sort out most pairs below the threshold without sorting
_MAX_BATCH = 128


def train_merges(
    data: bytes,
    lengths: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    n_merges: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[int, int]]:
    """The first `n_merges` merges, fewer when the pieces hold no more pairs.

    Args:
        data: the unique pieces, one after the other.
        lengths: how many bytes each has, at least 1, int64.
        counts: how often each occurs, int64.
        n_merges: how many merges to learn.
        progress: called now and then with (merges learned, merges wanted).
    """
    pieces = _Pieces(data, lengths, counts)
    queue = _Queue()
    merges: list[tuple[int, int]] = []
    threshold = 0
    while len(merges) < n_merges:
        if not queue.heap:
            if threshold == 1:
                break
            threshold, found = pieces.count_pairs(threshold)
            queue.put(found)
            continue
        pairs = queue.take(min(_MAX_BATCH, n_merges - len(merges)))
        batch = pieces.find(pairs, [queue.places.pop(pair) for pair in pairs])
        used = _in_order(pieces, batch, queue, threshold)
        queue.put_back(batch, set(range(len(pairs))).difference(used.tolist()), threshold)
        if not used.size:
            continue
        found = pieces.merge(batch, used, 256 + len(merges), threshold)
        merges += [(pairs[index] >> 32, pairs[index] & 0xFFFFFFFF) for index in used.tolist()]
        queue.put(found)
        if progress is not None:
            progress(len(merges), n_merges)
    return merges


@dataclass
class _Batch:
    """Some pairs, and all places where they are."""

    pairs: list[int]  # left << 32 | right
    at: Places  # the places of the first pair, ascending, then of the second
    starts: Places  # where in `at` each pair begins; one more for the end
    counts: Places

    def select(self, indices: Places) -> tuple[Places, Places]:
        """The places of these pairs, in this order, and the position of its pair for each."""
        begins, ends = self.starts[indices], self.starts[indices + 1]
        parts = [self.at[a:b] for a, b in zip(begins.tolist(), ends.tolist(), strict=True)]
        return np.concatenate(parts), np.repeat(np.arange(indices.size), ends - begins)


Found = list[tuple[int, int, Places]]
"""Pairs with their counts and their places, ascending."""


@dataclass
class _Queue:
    """The pairs that are followed, by (highest possible count, pair)."""

    heap: list[tuple[int, int]] = field(default_factory=list)
    places: dict[int, Places] = field(default_factory=dict)

    def put(self, found: Found) -> None:
        for pair, count, at in found:
            self.places[pair] = at
            heapq.heappush(self.heap, (-count, pair))

    def take(self, most: int) -> list[int]:
        """The first pairs, up to one whose merge would change the count of another."""
        lefts, rights = set[int](), set[int]()
        pairs: list[int] = []
        while self.heap and len(pairs) < most:
            pair = self.heap[0][1]
            left, right = pair >> 32, pair & 0xFFFFFFFF
            if left in rights or right in lefts:
                break
            heapq.heappop(self.heap)
            lefts.add(left)
            rights.add(right)
            pairs.append(pair)
        return pairs

    def put_back(self, batch: _Batch, indices: set[int], threshold: int) -> None:
        counts, starts = batch.counts.tolist(), batch.starts.tolist()
        for index in sorted(indices):
            if counts[index] >= threshold:
                self.places[batch.pairs[index]] = batch.at[starts[index] : starts[index + 1]]
                heapq.heappush(self.heap, (-counts[index], batch.pairs[index]))


def _in_order(pieces: "_Pieces", batch: _Batch, queue: _Queue, threshold: int) -> Places:
    """The pairs of a batch, in order, that come next whatever else there is."""
    ranked = sorted(zip((-batch.counts).tolist(), batch.pairs, itertools.count(), strict=False))
    limit = min(queue.heap[0] if queue.heap else (0, 0), (1 - threshold, -1))
    first = [index for negative, pair, index in ranked if (negative, pair) < limit]
    if len(first) < 2:
        return np.array(first, np.int64)
    order = np.array(first)
    created = np.maximum.accumulate(pieces.most_created(batch, order))
    late = np.flatnonzero(created[:-1] >= batch.counts[order[1:]])
    return order[: late[0] + 1] if late.size else order


class _Pieces:
    """All unique pieces as a linked list in arrays; index = place of a token."""

    def __init__(
        self, data: bytes, lengths: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
    ) -> None:
        order = np.empty(256, np.int32)
        order[list(BYTE_ORDER)] = np.arange(256)
        size = len(data) + lengths.size + 1
        within = np.ones(size, np.bool_)
        within[0] = False
        within[np.cumsum(lengths + 1)] = False
        self.token = np.full(size, _GAP, np.int32)
        self.token[within] = order[np.frombuffer(data, np.uint8)]
        self.weight = np.zeros(size, np.int64)
        self.weight[within] = np.repeat(counts, lengths)
        self.after = np.arange(1, size + 1, dtype=np.int32)
        self.before = np.arange(-1, size - 1, dtype=np.int32)
        self.after[-1] = 0  # a gap, like the first place

    def find(self, pairs: list[int], places: list[Places]) -> _Batch:
        """Count pairs again, at the places where they are still to be found."""
        wanted = np.array(pairs, np.int64)
        at = np.concatenate(places)
        which = np.repeat(np.arange(len(pairs)), [part.size for part in places])
        there = self._pairs_at(at) == wanted[which]
        at, which = at[there], which[there]
        counts = np.bincount(which, weights=self.weight[at], minlength=len(pairs))
        sizes = np.bincount(which, minlength=len(pairs))
        starts = np.zeros(sizes.size + 1, np.int64)
        np.cumsum(sizes, out=starts[1:])
        return _Batch(pairs, at, starts, counts.astype(np.int64))

    def _pairs_at(self, at: Places) -> npt.NDArray[np.int64]:
        left = self.token[at].astype(np.int64) << 32
        left |= self.token[self.after[at]]
        return left

    def most_created(self, batch: _Batch, order: Places) -> Places:
        """For each pair, a bound for the count of any pair that its merge creates."""
        at, which = batch.select(order)
        weight = self.weight[at]
        left = self.token[self.before[at]]
        right = self.token[self.after[self.after[at]]]
        # One key for each pair of the batch, side and neighbour; the side is bit 32.
        neighbours = np.concatenate([left, right]).astype(np.int64)
        sides = np.concatenate([which << 33, which << 33 | 1 << 32])
        ranked, starts = _sorted_groups(sides | (neighbours & 0xFFFFFFFF))
        sums = np.add.reduceat(np.concatenate([weight, weight])[ranked], starts)
        heads = ranked[starts]
        sums[neighbours[heads] == _GAP] = 0
        owners = sides[heads] >> 33
        most: Places = np.maximum.reduceat(sums, owners.searchsorted(np.arange(order.size)))
        return most

    def merge(self, batch: _Batch, used: Places, first_new: int, threshold: int) -> Found:
        """Merge these pairs of a batch; their new ids count up from `first_new`.

        Returns:
            The pairs this creates, of at least `threshold`.
        """
        token, after, before = self.token, self.after, self.before
        at, which = batch.select(used)
        kept = every_second(at, after)
        if kept.size < at.size:  # a token twice, in a run: its pairs overlap
            which = which[np.isin(at, kept)]
            at = kept
        new = which + first_new
        gone = after[at]
        beyond = after[gone]
        token[at] = new
        token[gone] = _GAP
        after[at] = beyond
        before[beyond] = at
        left = before[at]
        # Two new tokens side by side are found once, from the left one.
        old_left = (token[left] != _GAP) & (token[left] < first_new)
        places = np.concatenate([left[old_left], at[token[beyond] != _GAP]])
        return self._frequent(self._pairs_at(places), places, threshold)

    def _frequent(self, pairs: Places, places: Any, threshold: int) -> Found:
        """Pairs of at least `threshold`, their counts and places."""
        if not places.size:
            return []
        order, starts = _sorted_groups(pairs)
        places = places[order]
        sums = np.add.reduceat(self.weight[places], starts)
        large = (sums >= threshold).nonzero()[0]
        ends = np.append(starts, order.size)[large + 1]
        return [
            (pair, count, places[begin:end])
            for pair, count, begin, end in zip(
                pairs[order[starts[large]]].tolist(),
                sums[large].tolist(),
                starts[large].tolist(),
                ends.tolist(),
                strict=True,
            )
        ]

    def count_pairs(self, threshold: int) -> tuple[int, Found]:
        """Count all pairs.

        Args:
            threshold: the one before, 0 at the start.

        Returns:
            The next threshold, and the pairs of at least that count.
        """
        at = np.flatnonzero(self.token >= 0)
        at = at[self.token[self.after[at]] >= 0]
        if not at.size:
            return 1, []
        pairs = self._pairs_at(at)
        bins = (pairs.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _BINS)
        totals = np.bincount(bins.view(np.int64), self.weight[at], minlength=1 << _BINS)
        threshold = max(1, (threshold or int(totals.max())) // _FALL)
        some = np.flatnonzero(totals[bins] >= threshold)
        return threshold, self._frequent(pairs[some], at[some], threshold)


def _sorted_groups(keys: Places) -> tuple[Places, Places]:
    """The order that sorts keys, equal ones as they come, and where each new key begins."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begins = np.empty(keys.size, np.bool_)
    begins[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    return order, begins.nonzero()[0]
