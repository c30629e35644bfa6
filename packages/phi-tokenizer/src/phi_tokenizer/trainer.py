"""Learning the merges of a byte-level BPE from counted pieces.

Sennrich, Haddow and Birch (2016), "Neural machine translation of rare words with subword
units", arXiv:1508.07909, algorithm 1, over bytes instead of characters. The order is the one of
HF tokenizers: the pair with the highest count first, ties by ascending (id of the left token,
id of the right one).

Three observations make it fast:

1. After a pair has come into being, with the newer of its two tokens, its count can only fall.
   So a count in the heap is an upper bound, and is counted again only when it comes to the top.
2. Then pairs below some count cannot be merged before all pairs above it. Only pairs of at least
   `threshold` are followed; when they are used up, the threshold falls and all pairs are
   counted afresh.
3. The pieces lie in one array, linked by index, with a gap between two pieces. A merge is a few
   operations on the array of all places where it happens.
"""

import heapq
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from phi_tokenizer.merge_table import every_second
from phi_tokenizer.vocabulary import BYTE_ORDER

__all__ = ["train_merges"]

Places = npt.NDArray[np.int64]

_GAP = -1  # between two pieces, and where a token was merged away
_FALL = 6  # the threshold falls by this factor, or to 1
_BINS = 18  # 2^18 bins sort out most pairs below the threshold without sorting


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
    state = _Pieces(data, lengths, counts)
    merges: list[tuple[int, int]] = []
    threshold = 0
    heap: list[tuple[int, int]] = []
    places: dict[int, Places] = {}

    def follow(found: list[tuple[int, int, Places]]) -> None:
        for pair, count, at in found:
            places[pair] = at
            heapq.heappush(heap, (-count, pair))

    while len(merges) < n_merges:
        if not heap:
            if threshold == 1:
                break
            threshold, found = state.count_pairs(threshold)
            follow(found)
            if not found and threshold == 1:
                break
            continue
        upper, pair = heap[0]
        a, b = pair >> 32, pair & 0xFFFFFFFF
        at, count = state.recount(places[pair], a, b)
        if count < threshold:
            heapq.heappop(heap)
            del places[pair]
        elif count < -upper:
            heapq.heapreplace(heap, (-count, pair))
            places[pair] = at
        else:
            heapq.heappop(heap)
            del places[pair]
            follow(state.merge(at, a, b, 256 + len(merges), threshold))
            merges.append((a, b))
            if progress is not None and len(merges) % 64 == 0:
                progress(len(merges), n_merges)
    if progress is not None:
        progress(len(merges), n_merges)
    return merges


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

    def recount(self, at: Places, a: int, b: int) -> tuple[Places, int]:
        """Of these places, those where the pair still is, and its count."""
        there = (self.token[at] == a) & (self.token[self.after[at]] == b)
        if not there.all():
            at = at[there]
        return at, int(self.weight[at].sum())

    def merge(
        self, at: Places, a: int, b: int, new: int, threshold: int
    ) -> list[tuple[int, int, Places]]:
        """Put the token `new` for the pair at all these places.

        Returns:
            The pairs this makes, of at least `threshold`: (pair, count, places ascending).
        """
        token, after, before = self.token, self.after, self.before
        if a == b:
            at = every_second(at, after)
        gone = after[at]
        beyond = after[gone]
        token[at] = new
        token[gone] = _GAP
        after[at] = beyond
        before[beyond] = at
        left = before[at]
        found = _grouped(token[left], left, self.weight[at], threshold, skip=new)
        made = [(x << 32 | new, count, places) for x, count, places in found]
        found = _grouped(token[beyond], at, self.weight[at], threshold)
        return made + [(new << 32 | y, count, places) for y, count, places in found]

    def count_pairs(self, threshold: int) -> tuple[int, list[tuple[int, int, Places]]]:
        """Count all pairs.

        Args:
            threshold: the one before, 0 at the start.

        Returns:
            The next threshold, and the pairs of at least that count, as in `merge`.
        """
        at = np.flatnonzero(self.token >= 0)
        at = at[self.token[self.after[at]] >= 0]
        if not at.size:
            return 1, []
        pairs = self.token[at].astype(np.int64) << 32 | self.token[self.after[at]]
        weight = self.weight[at]
        bins = (pairs.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _BINS)
        totals = np.bincount(bins.view(np.int64), weights=weight, minlength=1 << _BINS)
        # At least one pair must come out, so the first one starts from the largest bin.
        threshold = max(1, (threshold or int(totals.max())) // _FALL)
        some = np.flatnonzero(totals[bins] >= threshold)
        return threshold, _grouped(pairs[some], at[some], weight[some], threshold)


def _grouped(
    neighbours: npt.NDArray[np.integer],
    places: npt.NDArray[np.integer],
    weights: npt.NDArray[np.int64],
    threshold: int,
    skip: int = _GAP,
) -> list[tuple[int, int, Places]]:
    """Sum the weights of equal neighbours: (neighbour, sum, places) where it is large enough.

    Gaps and the neighbour `skip` are left out. Places keep their order.
    """
    some = np.flatnonzero((neighbours != skip) & (neighbours != _GAP))
    if not some.size:
        return []
    order = some[np.argsort(neighbours[some], kind="stable")]
    ordered = neighbours[order]
    starts = np.append(0, np.flatnonzero(np.diff(ordered)) + 1)
    sums = np.add.reduceat(weights[order], starts)
    ends = np.append(starts[1:], order.size)
    large = np.flatnonzero(sums >= threshold)
    return [
        (int(ordered[starts[group]]), int(sums[group]), places[order[starts[group] : ends[group]]])
        for group in large.tolist()
    ]
