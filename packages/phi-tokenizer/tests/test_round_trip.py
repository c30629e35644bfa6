"""Whatever goes in comes out again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi_tokenizer import EncodingError, Tokenizer, TrainingError

CORPUS = ["It's a story of 12 cats; they'll sleep. " * 20, "naïve café, 日本語 text\n\n\tdone  "]
TOKENIZER = Tokenizer.train(CORPUS, vocab_size=300, special_tokens=["<|endoftext|>"])


@given(st.text())
def test_any_text(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text, disallowed_special=())) == text


def test_saved_and_loaded() -> None:
    again = Tokenizer.from_bytes(TOKENIZER.to_bytes())
    assert again.vocabulary == TOKENIZER.vocabulary
    assert again.to_bytes() == TOKENIZER.to_bytes()


def test_ids_in_order() -> None:
    assert TOKENIZER.n_vocab == 300
    assert TOKENIZER.eot_token == 299
    assert TOKENIZER.encode("a<|endoftext|>", allowed_special="all")[-1] == 299


def test_mistakes() -> None:
    with pytest.raises(TrainingError, match="too small"):
        Tokenizer.train("abc", vocab_size=200)
    with pytest.raises(TrainingError, match="no text"):
        Tokenizer.train([], vocab_size=300)
    with pytest.raises(EncodingError, match="surrogate"):
        TOKENIZER.encode("\ud800")
    with pytest.raises(EncodingError, match="not allowed"):
        TOKENIZER.encode("<|endoftext|>")
