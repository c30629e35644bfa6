"""The oracles: HF tokenizers and tiktoken. Missing, they fail these tests; none is skipped."""

import json
from collections.abc import Callable

import pytest
import tiktoken
import tokenizers

from phi_tokenizer import Tokenizer
from phi_tokenizer.splitter import GPT2


@pytest.fixture(scope="session")
def hf_train() -> Callable[[list[str], int], list[list[str]]]:
    """Merges that HF tokenizers learns, as pairs of texts."""

    def train(texts: list[str], vocab_size: int) -> list[list[str]]:
        byte_level = tokenizers.pre_tokenizers.ByteLevel
        model = tokenizers.Tokenizer(tokenizers.models.BPE())
        model.pre_tokenizer = byte_level(add_prefix_space=False)
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocab_size, initial_alphabet=byte_level.alphabet(), show_progress=False
        )
        model.train_from_iterator(texts, trainer)
        merges: list[list[str]] = json.loads(model.to_str())["model"]["merges"]
        return merges

    return train


@pytest.fixture(scope="session")
def hf() -> Callable[[Tokenizer], tokenizers.Tokenizer]:
    """The same tokenizer, read by HF tokenizers from our file."""
    return lambda tokenizer: tokenizers.Tokenizer.from_str(tokenizer.to_bytes().decode())


@pytest.fixture(scope="session")
def tik() -> Callable[..., tiktoken.Encoding]:
    """The same vocabulary in tiktoken."""

    def build(tokenizer: Tokenizer, pattern: str = GPT2) -> tiktoken.Encoding:
        return tiktoken.Encoding(
            name="ours",
            pat_str=pattern,
            mergeable_ranks=tokenizer.vocabulary.ids,
            special_tokens=tokenizer.special_tokens,
        )

    return build
