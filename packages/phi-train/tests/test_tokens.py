"""The stream, bits per byte by hand, the split, and windows that cover a stream once."""

from __future__ import annotations

import math
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi_tokenizer import Tokenizer
from phi_train import DataError
from phi_train.tokens import (
    FEW_DOCUMENTS,
    encode_documents,
    is_held_out,
    split_documents,
    windows,
)


def test_each_document_is_followed_by_one_end_token(tokenizer):
    texts = ["Lily ran.", "Grüße 😀", "the <|endoftext|> as text"]
    stream = encode_documents(texts, tokenizer)
    end = tokenizer.eot_token
    parts = [[*tokenizer.encode(t, disallowed_special=()), end] for t in texts]
    assert stream.ids.tolist() == list(chain(*parts))
    assert stream.ids.dtype == np.uint16
    assert (stream.ids == end).sum() == stream.n_documents == 3
    assert stream.end_token == end
    assert stream.text_bytes == sum(len(t.encode()) for t in texts)


def test_contexts_are_the_stream_shifted(tokenizer):
    stream = encode_documents(["Lily ran.", "Tom sat."], tokenizer)
    assert stream.contexts.tolist() == [stream.end_token, *stream.ids[:-1].tolist()]


def test_bits_per_byte_by_hand(tokenizer):
    """Two documents of 4 and 6 bytes, one nat for each of the tokens, end tokens included."""
    stream = encode_documents(["abcd", "éé 1"], tokenizer)
    assert stream.text_bytes == 4 + 6
    nats = float(stream.ids.size)
    assert stream.bits_per_byte(nats) == pytest.approx(nats / math.log(2) / 10)
    assert stream.bits_per_byte(10 * math.log(2)) == pytest.approx(1.0)


def test_checksums_tell_streams_apart(tokenizer):
    one = encode_documents(["Lily ran."], tokenizer)
    assert one.checksum == encode_documents(iter(["Lily ran."]), tokenizer).checksum
    assert one.checksum != encode_documents(["Lily ran!"], tokenizer).checksum


def test_no_documents_and_no_end_token(tokenizer):
    with pytest.raises(DataError, match="my source holds no text"):
        encode_documents([], tokenizer, what="my source")
    plain = Tokenizer.train("ab" * 10, vocab_size=257)
    with pytest.raises(DataError, match=r"has no <\|endoftext\|> token.*--special"):
        encode_documents(["x"], plain)


def test_split_is_deterministic_and_disjoint_by_text(stories):
    texts = stories(400, words=5)
    texts += texts[:50]  # a text that occurs twice stays on one side
    train, valid = split_documents(texts)
    assert (train, valid) == split_documents(iter(texts))
    assert not set(train) & set(valid)
    assert sorted(train + valid) == sorted(texts)
    assert train == [t for t in texts if not is_held_out(t)]
    assert 0.02 < len(valid) / len(texts) < 0.09


def test_a_side_does_not_depend_on_the_other_documents(stories):
    texts = stories(400, words=5)
    _, valid = split_documents(texts)
    _, valid_of_more = split_documents(texts[100:] + stories(200, words=6, seed=1))
    assert set(valid) & set(texts[100:]) <= set(valid_of_more)


@given(st.text("abc \n", min_size=40, max_size=400).map(str.strip))
def test_one_document_loses_nothing_but_white_space(text):
    train, valid = split_documents([text] if text else [])
    assert "".join((" ".join(train + valid)).split()) == "".join(text.split())
    if len(text) >= 20:
        assert train
        assert len(valid) == 1
        assert len(" ".join(train)) >= len(text) / 2 - 100


def test_the_tail_is_cut_between_words():
    words = [f"word{i}" for i in range(200)]
    train, valid = split_documents([" ".join(words)])
    assert train[0].split() + valid[0].split() == words
    assert len(valid[0]) / len(" ".join(words)) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("text", ["x" * 1000, "a " + "x" * 1000, "日本語" * 400])
def test_the_tail_of_a_text_without_spaces_is_a_twentieth(text):
    (train,), (valid,) = split_documents([text])
    assert train + valid == text
    assert len(valid) == len(text) // 20


def test_a_few_documents_are_split_at_the_end(stories):
    texts = stories(FEW_DOCUMENTS - 1)
    train, valid = split_documents(texts)
    assert " ".join(train + valid).split() == " ".join(texts).split()
    size = sum(map(len, valid)) / sum(map(len, texts))
    assert size == pytest.approx(0.05, abs=0.01)


def test_too_little_to_split():
    assert split_documents(["short"]) == (["short"], [])
    assert split_documents([]) == ([], [])


@given(st.integers(1, 40), st.integers(1, 300), st.integers(1, 9))
def test_windows_cover_a_stream_once(length, total, batch_size):
    covered = []
    sizes = []
    for start, rows, columns in windows(length, total, batch_size):
        assert rows <= batch_size
        covered += range(start, start + rows * columns)
        sizes += [columns] * rows
    assert covered == list(range(total))
    assert all(size == length for size in sizes[:-1])
    assert sizes[-1] == (total % length or length)
