"""The regular expression, the whole-array splitter and the character-by-character twin agree."""

import random
from itertools import pairwise

import pytest
import twins
from hypothesis import given, settings
from hypothesis import strategies as st

from phi_tokenizer import FormatError, MissingExtraError, Tokenizer, TokenizerError
from phi_tokenizer.pieces import CUT, END, chunks, find_pieces
from phi_tokenizer.splitter import CL100K, GPT2, Splitter
from phi_tokenizer.unicode_table import (
    LETTERS,
    NUMBERS,
    SPACES,
    class_table,
    parse_ranges,
)

KIND = dict.fromkeys(map(chr, range(0x110000)), "O")
for ranges, kind in ((LETTERS, "L"), (NUMBERS, "N"), (SPACES, "S")):
    for first, last in parse_ranges(ranges):
        KIND.update(dict.fromkeys(map(chr, range(first, last + 1)), kind))

AWKWARD = (
    *"ab1 '\n\t.-sdmtlveré日🎉\u3000\xa0\u2028\x1cÿ٣²\x00\x85\u1680",
    *("'s", "'ll", "  ", "'re", "' ", " '"),
)
texts = st.lists(st.sampled_from(AWKWARD) | st.characters(codec="utf-8"), max_size=24).map("".join)


def whole_array(parts: list[str], size: int) -> list[bytes]:
    pieces = []
    for chunk in chunks([part.encode() for part in parts], size=size):
        bounds = [*find_pieces(chunk).tolist(), len(chunk)]
        pieces += [chunk[a:b] for a, b in pairwise(bounds)]
    return [piece for piece in pieces if piece != CUT]


@given(texts)
@settings(max_examples=400, deadline=None)
def test_regular_expression_is_the_twin(text: str) -> None:
    assert Splitter("gpt2").split(text) == twins.split_gpt2(text, KIND)


@given(st.lists(texts, max_size=4), st.sampled_from([1, 4, 1000]))
@settings(max_examples=400, deadline=None)
def test_whole_arrays_are_the_twin(parts: list[str], size: int) -> None:
    expected = []
    for part in parts:
        expected += [piece.encode() for piece in twins.split_gpt2(part, KIND)] + [END]
    assert whole_array(parts, size) == expected


def test_every_character_beside_others() -> None:
    rng = random.Random(0)
    borders = {
        point + step
        for ranges in (LETTERS, NUMBERS, SPACES)
        for pair in parse_ranges(ranges)
        for point in pair
        for step in (-1, 0, 1)
    }
    points = sorted(borders | set(range(0x3100)) | {0xFFFF, 0x10000, 0x10FFFF})
    text = "".join(
        chr(point) + rng.choice(("a", " ", "1", "", "'s", "  "))
        for point in points * 3
        if not 0xD800 <= point < 0xE000
    )
    assert whole_array([text], 1 << 16) == [p.encode() for p in twins.split_gpt2(text, KIND)] + [
        END
    ]


def test_the_table_is_the_ranges() -> None:
    """And has as many letters, numbers and spaces as Unicode 16.0 has."""
    kinds = list(KIND.values())
    assert [kinds.count(kind) for kind in "LNS"] == [141_028, 1_911, 25]
    names = {0: "O", 1: "L", 2: "N", 3: "S"}
    table = class_table()
    assert all(names[value] == KIND[chr(point)] for point, value in enumerate(table.tolist()))


def test_known_pieces() -> None:
    split = Splitter("gpt2").split
    assert split("It's 2 o'clock") == ["It", "'s", " 2", " o", "'", "clock"]
    assert split("a  b\n\n c ") == ["a", " ", " b", "\n\n", " c", " "]
    assert split("") == []


def test_cl100k() -> None:
    split = Splitter("cl100k").split
    assert split("I'M 12345  ok\r\n") == ["I", "'M", " ", "123", "45", " ", " ok", "\r\n"]
    assert Splitter(CL100K).name == "cl100k"
    assert Splitter(GPT2).name == "gpt2"


def test_a_pattern_of_ones_own_loses_nothing() -> None:
    assert Splitter(r"\w+").split("ab, cd") == ["ab", ", ", "cd"]
    assert Splitter(r"x*").split("axxb") == ["a", "xx", "b"]
    assert Splitter("none").split("a b") == ["a b"]


@given(st.text())
def test_every_pattern_gives_the_text_back(text: str) -> None:
    for pattern in ("gpt2", "cl100k", "none", r"\d+|[a-c]"):
        pieces = Splitter(pattern).split(text)
        assert "".join(pieces) == text
        assert all(pieces)


def test_training_with_other_patterns() -> None:
    for pattern in ("cl100k", "none", r"\p{L}+|\P{L}"):
        tokenizer = Tokenizer.train(["abab abba ab 12 12 abc"] * 3, vocab_size=260, pattern=pattern)
        again = Tokenizer.from_bytes(tokenizer.to_bytes())
        assert again == tokenizer
        assert again.pattern == pattern
        ids, ends = again.encode_batch_to_numpy(["ab", "12 ab"], append=3)
        assert ids[ends - 1].tolist() == [3, 3]
        assert again.decode(again.encode("ab 12 é")) == "ab 12 é"
    whole = Tokenizer.train("ab ab ab ab", vocab_size=258, pattern="none")
    assert whole.token_bytes(256) in (b"ab", b"b ")


def test_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FormatError, match="not a valid regular expression"):
        Splitter("(")
    with pytest.raises(TokenizerError, match="capturing"):
        Splitter("(a)")
    monkeypatch.setitem(__import__("sys").modules, "regex", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'phi-tokenizer\[patterns\]'"):
        Splitter("cl100k")
    assert Splitter("gpt2").split("a b") == ["a", " b"]
