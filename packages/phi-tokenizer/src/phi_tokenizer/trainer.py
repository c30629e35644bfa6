"""Learning the merges of a byte-level BPE from counted pieces.

Sennrich, Haddow and Birch (2016), "Neural machine translation of rare words with subword
units", arXiv:1508.07909, algorithm 1, over bytes instead of characters. The order is the one of
HF tokenizers: the pair with the highest count first, ties by ascending (id of the left token,
id of the right one).
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import pairwise

from phi_tokenizer.vocabulary import BYTE_ORDER

__all__ = ["train_merges"]


def train_merges(
    counts: Mapping[bytes, int],
    n_merges: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[int, int]]:
    """The first `n_merges` merges, fewer when the pieces hold no more pairs.

    Args:
        counts: each unique piece and how often it occurs.
        n_merges: how many merges to learn.
        progress: called now and then with (merges learned, merges wanted).
    """
    byte_id = {byte: index for index, byte in enumerate(BYTE_ORDER)}
    words = [[byte_id[byte] for byte in piece] for piece in counts]
    weights = list(counts.values())
    pairs: dict[tuple[int, int], int] = defaultdict(int)
    where: dict[tuple[int, int], set[int]] = defaultdict(set)
    for index, (word, weight) in enumerate(zip(words, weights, strict=True)):
        for pair in pairwise(word):
            pairs[pair] += weight
            where[pair].add(index)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    merges: list[tuple[int, int]] = []
    while heap and len(merges) < n_merges:
        negative, pair = heapq.heappop(heap)
        if pairs[pair] != -negative:
            if pairs[pair] > 0:
                heapq.heappush(heap, (-pairs[pair], pair))
            continue
        new_id = 256 + len(merges)
        merges.append(pair)
        created = set()
        for index in where.pop(pair):
            word, weight = words[index], weights[index]
            merged = merge_pair(word, pair, new_id)
            for old in pairwise(word):
                pairs[old] -= weight
            for new in pairwise(merged):
                pairs[new] += weight
                where[new].add(index)
                if new_id in new:
                    created.add(new)
            words[index] = merged
        for new in created:
            heapq.heappush(heap, (-pairs[new], new))
        if progress is not None:
            progress(len(merges), n_merges)
    return merges


def merge_pair(word: list[int], pair: tuple[int, int], new_id: int) -> list[int]:
    """`word` with each `pair` replaced by `new_id`, from the left."""
    out: list[int] = []
    index = 0
    while index < len(word):
        if word[index : index + 2] == list(pair):
            out.append(new_id)
            index += 2
        else:
            out.append(word[index])
            index += 1
    return out
