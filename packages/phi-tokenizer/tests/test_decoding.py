"""Ids back to text: whole, in a stream, with offsets; and ids that do not exist."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi_tokenizer import EncodingError, TokenIdError, Tokenizer
from phi_tokenizer.decoder import Decoder

TOKENS = [bytes([byte]) for byte in range(256)] + [b"a longer token than a word", "é".encode()]
DECODER = Decoder(TOKENS)


@given(st.lists(st.integers(0, 257), max_size=400))
def test_join(ids: list[int]) -> None:
    expected = b"".join(TOKENS[i] for i in ids)
    assert DECODER.join(ids) == expected
    assert DECODER.join(np.array(ids, np.uint16)) == expected
    assert DECODER.join(iter(ids)) == expected


def test_join_over_many_blocks() -> None:
    ids = np.random.default_rng(0).integers(0, 258, 100_000)
    assert DECODER.join(ids) == b"".join(TOKENS[i] for i in ids.tolist())


@pytest.mark.parametrize("bad", [-1, 258, 1 << 40, 1 << 80])
def test_ids_that_do_not_exist(bad: int) -> None:
    for ids in ([bad], [0] * 100 + [bad], [bad] + [0] * 100):
        with pytest.raises(TokenIdError, match=f"token id {bad} .* from 0 to 257"):
            DECODER.join(ids)
    if abs(bad) < 1 << 60:
        with pytest.raises(TokenIdError, match=f"token id {bad} "):
            DECODER.join(np.array([5] * 100 + [bad]))


def test_ids_that_are_no_numbers() -> None:
    for ids in (["x"], ["x"] * 100):
        with pytest.raises(TokenIdError, match="'x'"):
            DECODER.join(ids)  # type: ignore[list-item]
    with pytest.raises(TokenIdError, match="whole numbers"):
        DECODER.join(np.array([0.5]))
    with pytest.raises(TokenIdError, match="shape"):
        DECODER.join(np.zeros((2, 2), int))
    assert DECODER.join(np.array([])) == b""


def test_ids_that_stand_for_nothing() -> None:
    decoder = Decoder([b"a", None, b"b"])
    assert decoder.join([0, 2] * 50) == b"ab" * 50
    with pytest.raises(TokenIdError, match="token id 1 "):
        decoder.join([0] * 100 + [1])


@given(st.lists(st.integers(0, 257), max_size=40))
@settings(max_examples=300)
def test_stream(ids: list[int]) -> None:
    """Nothing is lost, and nothing shown is taken back."""
    tokenizer = Tokenizer.train("éa", vocab_size=258)
    stream = tokenizer.stream_decoder()
    shown = ""
    for index, token_id in enumerate(ids):
        shown += stream.feed(token_id)
        assert tokenizer.decode(ids[: index + 1]).startswith(shown)
    assert shown + stream.flush() == tokenizer.decode(ids)
    assert stream.flush() == ""


@given(st.text())
def test_stream_never_shows_half_a_character(text: str) -> None:
    tokenizer = Tokenizer.train("x", vocab_size=256)
    stream = tokenizer.stream_decoder()
    shown = [stream.feed(token_id) for token_id in tokenizer.encode(text)]
    assert "".join(shown) == text
    assert all(len(part) <= 1 for part in shown)
    assert stream.flush() == ""


def test_stream_refuses_unknown_ids(tokenizer: Tokenizer) -> None:
    stream = tokenizer.stream_decoder()
    with pytest.raises(TokenIdError, match="token id 302"):
        stream.feed(302)
    with pytest.raises(TokenIdError, match="token id -1"):
        stream.feed(-1)


@given(st.text())
def test_offsets(text: str) -> None:
    tokenizer = Tokenizer.train("naïve café 日本 日本 la la la", vocab_size=270)
    ids = tokenizer.encode(text)
    decoded, offsets = tokenizer.decode_with_offsets(ids)
    assert decoded == text
    data = b""
    for token_id, offset in zip(ids, offsets, strict=True):
        begun = data.decode("utf-8", "ignore")  # the whole characters before this token
        assert offset == len(begun)
        data += tokenizer.token_bytes(token_id)


def test_offsets_need_whole_characters(tokenizer: Tokenizer) -> None:
    half = tokenizer.encode_bytes("🎉".encode()[:2])
    assert tokenizer.decode(half) == "\ufffd"
    with pytest.raises(EncodingError, match="not UTF-8"):
        tokenizer.decode_with_offsets(half)


def test_lengths_and_values(tokenizer: Tokenizer) -> None:
    lengths = tokenizer.token_byte_lengths
    assert lengths.dtype == np.int32
    assert lengths.tolist() == [len(tokenizer.token_bytes(i)) for i in range(tokenizer.n_vocab)]
    assert lengths[tokenizer.eot_token] == len("<|endoftext|>")
    values = tokenizer.token_byte_values()
    assert len(values) == tokenizer.n_vocab - 2
    assert values == sorted(values)
    ids = tokenizer.encode("any text, naïve 日本語")
    assert lengths[ids].sum() == len("any text, naïve 日本語".encode())


def test_batch(tokenizer: Tokenizer) -> None:
    texts = ["a", "", "naïve 🎉"]
    assert tokenizer.decode_batch(tokenizer.encode_batch(texts)) == texts
