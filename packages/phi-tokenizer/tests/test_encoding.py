"""Every way of encoding gives the ids of the twin, and every text comes back."""

import os
import random
import time
from typing import Any

import numpy as np
import pytest
import twins
from hypothesis import given, settings
from hypothesis import strategies as st

from phi_tokenizer import EncodingError, TokenIdError, Tokenizer
from phi_tokenizer.bulk import BulkEncoder
from phi_tokenizer.encoder import PieceEncoder
from phi_tokenizer.merge_table import MergeTable, every_second
from phi_tokenizer.splitter import Splitter
from phi_tokenizer.vocabulary import Vocabulary

CORPUS = "It's a story of 12 cats; they'll sleep. aaaa bbbb " * 9 + "naïve café, 日本語\n\n\tdone  "
TOKENIZER = Tokenizer.train([CORPUS], vocab_size=301, special_tokens=["<|endoftext|>"])
MERGES = list(TOKENIZER.vocabulary.merges)


def twin(text: str) -> list[int]:
    pieces = Splitter("gpt2").split(text)
    return [token for piece in pieces for token in twins.encode(piece.encode(), MERGES)]


def bulk(tokenizer: Tokenizer) -> BulkEncoder:
    assert tokenizer._bulk is not None
    tokenizer._bulk.clear()
    return tokenizer._bulk


texts = st.text(st.sampled_from("aabb st'lé日🎉\n\t\u3000\x1c12.;") | st.characters(codec="utf-8"))


@given(texts)
@settings(max_examples=300, deadline=None)
def test_short_and_bulk_are_the_twin(text: str) -> None:
    expected = twin(text)
    assert TOKENIZER.encode_ordinary(text) == expected
    assert bulk(TOKENIZER).encode(text.encode()).tolist() == expected
    assert TOKENIZER.decode(expected) == text


@given(st.lists(texts, max_size=6))
@settings(max_examples=100, deadline=None)
def test_batches(batch: list[str]) -> None:
    expected = [twin(text) for text in batch]
    assert TOKENIZER.encode_batch(batch, disallowed_special=()) == expected
    ids, ends = TOKENIZER.encode_batch_to_numpy(batch, disallowed_special=(), append=300)
    assert ids.dtype == np.uint16
    assert ids.tolist() == [token for row in expected for token in [*row, 300]]
    assert ends.tolist() == np.cumsum([len(row) + 1 for row in expected]).tolist()


def test_long_texts_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long enough for many chunks, for a full cache and for long pieces, at all the places."""
    monkeypatch.setattr("phi_tokenizer.bulk.CHUNK_BYTES", 300)
    monkeypatch.setattr("phi_tokenizer.bulk.MAX_PIECES", 200)
    rng = random.Random(1)
    words = ["cats", " ", "  ", "\n", "it's", "sto" * 40, "日本", "\u3000", "12", "a" * 150, "x;"]
    text = "".join(rng.choices(words, k=1200)) + "".join(map(chr, range(0x20, 0x500)))
    expected = twin(text)
    assert len(text) > 4096
    for _ in range(2):
        assert TOKENIZER.encode_ordinary(text) == expected
        assert TOKENIZER.encode_to_numpy(text).tolist() == expected


@given(st.binary() | st.text().map(str.encode))
@settings(max_examples=300, deadline=None)
def test_any_bytes(data: bytes) -> None:
    ids = TOKENIZER.encode_bytes(data)
    assert TOKENIZER.decode_bytes(ids) == data
    assert bulk(TOKENIZER).encode_bytes(data).tolist() == ids


def test_many_bytes() -> None:
    data = random.Random(2).randbytes(20_000) + b"\xff\xfe\xff" + CORPUS.encode()
    assert TOKENIZER.decode_bytes(TOKENIZER.encode_bytes(data)) == data


@pytest.mark.parametrize("pattern", ["none", "gpt2"])
def test_merging_in_every_way(pattern: str) -> None:
    """One piece by the list, by the heap, in rounds and by waves."""
    rng = random.Random(3)
    for _ in range(60):
        corpus = ["".join(rng.choices("ab cé", k=40)) for _ in range(12)]
        vocabulary = Tokenizer.train(corpus, vocab_size=280, pattern=pattern).vocabulary
        table = MergeTable(vocabulary)
        one = PieceEncoder(vocabulary, table)
        pieces = ["".join(rng.choices("aab cé", k=rng.randint(1, 60))).encode() for _ in range(9)]
        expected = [twins.encode(piece, list(vocabulary.merges)) for piece in pieces]
        tokens = one.byte_ids[np.frombuffer(b"".join(pieces), np.uint8)]
        lengths = np.array([len(piece) for piece in pieces])
        assert table.in_order
        for merge in (table.merge_pieces, table.merge_long):
            ids, counts = merge(tokens, lengths)
            assert ids.tolist() == [token for row in expected for token in row]
            assert counts.tolist() == [len(row) for row in expected]
        for piece, row in zip(pieces, expected, strict=True):
            start = one.byte_ids[np.frombuffer(piece, np.uint8)].tolist()
            assert one._merge_short(list(start)) == row
            assert one._merge_exact(list(start)) == row


def test_merges_that_are_out_of_order() -> None:
    """An imported vocabulary may use a token before it makes it; then only the plain ways."""
    base = Tokenizer.train("x", vocab_size=256).vocabulary
    a, b = base.ids[b"a"], base.ids[b"b"]
    tokens = [*base.tokens, b"ab", b"aba"]
    tokenizer = Tokenizer(Vocabulary(tokens, [(256, a), (a, b)], {}))
    text = "abab" * 2000
    assert tokenizer.encode("ababa") == [257, b, a]
    assert tokenizer.encode(text)[:2] == [257, b]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_whole_pieces_first() -> None:
    base = TOKENIZER.vocabulary
    tokens = [*base.tokens[:300], b" xyzzy"]
    plain = Tokenizer(Vocabulary(tokens, base.merges, {}))
    whole = Tokenizer(Vocabulary(tokens, base.merges, {}, whole_pieces_first=True))
    text = "a xyzzy xyzzya" * 800
    assert 300 not in plain.encode("a xyzzy")
    assert whole.encode("a xyzzy")[-1] == 300
    assert whole.encode(text)[:2] == whole.encode("a xyzzy")
    assert whole.decode(whole.encode(text)) == text


def test_special_tokens(tokenizer: Tokenizer) -> None:
    eot, end = tokenizer.special_tokens["<|endoftext|>"], tokenizer.special_tokens["<|end|>"]
    text = "a<|endoftext|><|end|>b"
    with pytest.raises(EncodingError, match="not allowed here"):
        tokenizer.encode(text)
    with pytest.raises(EncodingError, match=r"<\|end\|>"):
        tokenizer.encode(text, allowed_special={"<|endoftext|>"})
    a, b = tokenizer.encode("a"), tokenizer.encode("b")
    everything = [*a, eot, end, *b]
    assert tokenizer.encode(text, allowed_special="all") == everything
    assert tokenizer.encode_to_numpy(text, allowed_special="all").tolist() == everything
    assert tokenizer.encode_batch([text, text], allowed_special="all") == [everything] * 2
    ordinary = tokenizer.encode(text, disallowed_special=())
    assert eot not in ordinary
    assert tokenizer.decode(ordinary) == tokenizer.decode(everything) == text
    some = tokenizer.encode(text, allowed_special={"<|end|>"}, disallowed_special=())
    assert end in some
    assert eot not in some
    with pytest.raises(EncodingError, match="'b'"):
        tokenizer.encode(text, disallowed_special={"b"})


def test_the_longest_special_token_wins() -> None:
    names = ["<|a|>", "<|a|><|b|>", "<|b|>"]
    tokenizer = Tokenizer.train("abc", vocab_size=259, special_tokens=names)
    assert tokenizer.encode("<|a|><|b|>", allowed_special="all") == [257]
    assert tokenizer.encode("<|a|><|b|>", allowed_special={"<|a|>", "<|b|>"}, disallowed_special=()) == [256, 258]  # fmt: skip  # noqa: E501


def test_worker_processes() -> None:
    batch = [CORPUS * n for n in range(1, 6)] + ["", "a<|endoftext|>b"]
    alone = TOKENIZER.encode_batch(batch, allowed_special="all")
    assert TOKENIZER.encode_batch(batch, allowed_special="all", workers=2) == alone
    with pytest.raises(EncodingError, match="not allowed"):
        TOKENIZER.encode_batch(batch, workers=2)


@pytest.mark.parametrize("text", ["\ud800", "a" * 5000 + " \udfff"])
def test_lone_surrogates(text: str) -> None:
    for encode in (TOKENIZER.encode, TOKENIZER.encode_ordinary, TOKENIZER.encode_to_numpy):
        with pytest.raises(EncodingError, match="lone surrogate"):
            encode(text)
    with pytest.raises(EncodingError, match="lone surrogate"):
        TOKENIZER.encode_batch([text])


def test_single_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_single_token("<|endoftext|>") == tokenizer.eot_token
    assert tokenizer.token_bytes(tokenizer.encode_single_token(" ")) == b" "
    with pytest.raises(TokenIdError, match="not one token"):
        tokenizer.encode_single_token(b"zzzzzz")
    with pytest.raises(KeyError):
        Tokenizer.train("a", vocab_size=256).eot_token  # noqa: B018


CASES: dict[str, Any] = {
    "one letter": "a" * 1_000_000,
    "spaces": " " * 1_000_000,
    "newlines": "\n" * 1_000_000,
    "CJK": "".join(chr(0x4E00 + i * 7919 % 20000) for i in range(333_333)),
    "emoji": "🎉" * 250_000,
    "no spaces": "thelittlecatsleptandthestorywentonandon" * 25_641,
    "random": os.urandom(1_000_000),
}


@pytest.mark.parametrize("name", CASES)
def test_never_quadratic(name: str) -> None:
    """1 MB takes about ten times as long as 100 KB, not a hundred times."""
    text = CASES[name]
    encode = TOKENIZER.encode_bytes if isinstance(text, bytes) else TOKENIZER.encode
    encode(text[:1000])

    def seconds(part: Any) -> float:
        begin = time.process_time()
        encode(part)
        return time.process_time() - begin

    small = min(seconds(text[: len(text) // 10]) for _ in range(2))
    large = min(seconds(text) for _ in range(2))
    assert large < 30 * small + 0.1, (small, large)


def test_every_second() -> None:
    assert every_second(np.array([1, 2, 3, 4, 9])).tolist() == [1, 3, 9]
    assert every_second(np.array([0, 5]), np.array([5, 0, 0, 0, 0, 7])).tolist() == [0]


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phi_tokenizer.bulk.MAX_PIECES", 1000)
    encoder = bulk(TOKENIZER)
    for first in range(0, 20_000, 1000):
        text = " ".join(f"w{first + i}" for i in range(1000))
        assert TOKENIZER.decode(encoder.encode(text.encode())) == text
        assert encoder._table.count < 4000
