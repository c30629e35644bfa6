"""The fast trainer against the twin that counts everything again after each merge."""

import random
from itertools import chain

import pytest
import twins
from hypothesis import given, settings
from hypothesis import strategies as st

from phi_tokenizer import Tokenizer, TokenizerError, TrainingError
from phi_tokenizer.splitter import Splitter

pytestmark = pytest.mark.filterwarnings("ignore:the texts hold only")


def merges_of(texts: list[str], n_merges: int) -> list[tuple[int, int]]:
    return list(Tokenizer.train(texts, vocab_size=256 + n_merges).vocabulary.merges)


def twin_merges(texts: list[str], n_merges: int) -> list[tuple[int, int]]:
    split = Splitter("gpt2").split
    return twins.train((p.encode() for p in chain.from_iterable(map(split, texts))), n_merges)


@given(st.lists(st.text("ab c'sé\n", min_size=1, max_size=40), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_many_ties(texts: list[str]) -> None:
    assert merges_of(texts, 24) == twin_merges(texts, 24)


@pytest.mark.parametrize("seed", range(12))
def test_larger_corpora(seed: int) -> None:
    """Words drawn unevenly, so that batches of merges and several thresholds come up."""
    rng = random.Random(seed)
    letters = rng.choice(["abcdefgh", "aab", "etaoin shrdlu"])
    words = ["".join(rng.choices(letters, k=rng.randint(1, 9))) for _ in range(120)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    texts = [" ".join(rng.choices(words, weights, k=400)) for _ in range(3)]
    assert merges_of(texts, 90) == twin_merges(texts, 90)


def test_overlapping_runs() -> None:
    """`aaaa` holds `aa` three times, but is merged twice."""
    texts = ["aaaa aaa aaaaaaa baaab aa a"]
    assert merges_of(texts, 12) == twin_merges(texts, 12)


def test_ids_and_sizes() -> None:
    special = ["<|endoftext|>", "<|x|>"]
    tokenizer = Tokenizer.train("low lower lowest " * 9, vocab_size=264, special_tokens=special)
    assert tokenizer.n_vocab == 264
    assert tokenizer.special_tokens == {"<|endoftext|>": 262, "<|x|>": 263}
    assert tokenizer.eot_token == 262
    assert [tokenizer.token_bytes(i) for i in (0, 93, 94, 188)] == [b"!", b"~", b"\xa1", b"\0"]


def test_special_tokens_never_enter_training() -> None:
    plain = Tokenizer.train(["ab cd", "ab ef"], vocab_size=259)
    special = ["<|endoftext|>"]
    split = Tokenizer.train("ab cd<|endoftext|>ab ef", vocab_size=260, special_tokens=special)
    assert split.vocabulary.merges == plain.vocabulary.merges


def test_too_little_text_gives_a_smaller_vocabulary() -> None:
    with pytest.warns(UserWarning, match=r"only 2 merges, not 40.*has 259 tokens instead of 297"):
        tokenizer = Tokenizer.train("abc", vocab_size=297, special_tokens=["<|endoftext|>"])
    assert tokenizer.eot_token == 258
    assert tokenizer.encode("abc") == [257]


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ("abc", {"vocab_size": 255}, "vocab_size 255 is too small: 256 bytes need at least 256"),
        ("abc", {"vocab_size": 256, "special_tokens": ["<|a|>"]}, "need at least 257"),
        ("abc", {"vocab_size": 65537}, "at most 65536"),
        ([], {"vocab_size": 300}, "no text to train on"),
        (["", ""], {"vocab_size": 300}, "no text to train on"),
        ("abc", {"vocab_size": 300, "special_tokens": ["<|a|>", "<|a|>"]}, "given twice"),
        ("abc", {"vocab_size": 300, "special_tokens": "<|a|>"}, "a list of names"),
        ("abc", {"vocab_size": 300, "special_tokens": [""]}, "not empty"),
        ("a\ud800", {"vocab_size": 300}, "lone surrogate"),
    ],
)
def test_mistakes(texts: object, options: dict[str, object], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.train(texts, **options)


def test_an_ordinary_word_cannot_be_special() -> None:
    with pytest.raises(TokenizerError, match="ordinary token too"):
        Tokenizer.train("ababab", vocab_size=258, special_tokens=["a"])


def test_progress_is_reported() -> None:
    seen: list[tuple[str, int, int]] = []
    Tokenizer.train(
        ["some text to merge"] * 2000, vocab_size=262, progress=lambda *step: seen.append(step)
    )
    assert ("reading", 1024, 2000) in seen
    assert seen[-1] == ("merging", 6, 6)


def test_the_same_every_time() -> None:
    texts = ["to be or not to be, that is the question " * 3]
    first = Tokenizer.train(texts, vocab_size=290)
    assert Tokenizer.train(texts, vocab_size=290).to_bytes() == first.to_bytes()


def test_a_training_error_is_a_tokenizer_error() -> None:
    assert issubclass(TrainingError, TokenizerError)
