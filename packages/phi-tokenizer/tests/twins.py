"""The slow and obvious ways, which the fast ones are held against."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

BYTE_ORDER = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTE_ORDER += [byte for byte in range(256) if byte not in BYTE_ORDER]


def replace_pair(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """Each `pair` in `word` becomes `new`, from the left."""
    out: list[int] = []
    index = 0
    while index < len(word):
        if tuple(word[index : index + 2]) == pair:
            out.append(new)
            index += 2
        else:
            out.append(word[index])
            index += 1
    return out


def train(pieces: Iterable[bytes], n_merges: int) -> list[tuple[int, int]]:
    """Count all pairs, merge the first, count again."""
    words = [([BYTE_ORDER.index(b) for b in piece], n) for piece, n in Counter(pieces).items()]
    merges: list[tuple[int, int]] = []
    for _ in range(n_merges):
        counts: Counter[tuple[int, int]] = Counter()
        for word, weight in words:
            for pair in pairwise(word):
                counts[pair] += weight
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        words = [(replace_pair(word, best, 256 + len(merges)), n) for word, n in words]
        merges.append(best)
    return merges


def encode(piece: bytes, merges: list[tuple[int, int]]) -> list[int]:
    """The pair with the lowest rank is merged wherever it is, again and again."""
    word = [BYTE_ORDER.index(byte) for byte in piece]
    while True:
        present = [merges.index(pair) for pair in pairwise(word) if pair in merges]
        if not present:
            return word
        word = replace_pair(word, merges[min(present)], 256 + min(present))


def split_gpt2(text: str, kind: dict[str, str]) -> list[str]:
    """GPT-2's pattern, one character after another; `kind` gives L, N, S or O."""
    pieces: list[str] = []
    at = 0
    while at < len(text):
        end = at
        contraction = next(
            (c for c in ("'s", "'d", "'m", "'t", "'ll", "'ve", "'re") if text.startswith(c, at)), ""
        )
        if contraction:
            end = at + len(contraction)
        else:
            begin = at + (text[at] == " " and at + 1 < len(text) and kind[text[at + 1]] != "S")
            end = begin
            while end < len(text) and kind[text[end]] == kind[text[begin]]:
                end += 1
            if kind[text[begin]] == "S" and end < len(text) and end - at > 1:
                end -= 1  # one is left for the next piece
        pieces.append(text[at:end])
        at = end
    return pieces
