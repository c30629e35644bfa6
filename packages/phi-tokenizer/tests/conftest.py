"""Tokenizers that many tests use."""

import sys
from pathlib import Path

import pytest

from phi_tokenizer import Tokenizer

sys.path.insert(0, str(Path(__file__).parent))  # for twins.py

STORY = (
    "Once upon a time, there was a little girl named Lily. She didn't like the rain, but she'll "
    "play outside! \"It's 12 o'clock,\" said Tom.\n\nThey're happy.  The café is naïve; 日本語 "
    "and emoji 🎉🎉 too.\n\tdef f(x):\n        return x + 1000\n"
)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """300 ordinary tokens and two special ones."""
    return Tokenizer.train(
        [STORY * 3, "the end"], vocab_size=302, special_tokens=["<|endoftext|>", "<|end|>"]
    )
