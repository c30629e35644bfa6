"""Small checkpoints with random weights, made on the spot; nothing is trained here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phi_model import GPT, ModelConfig, build_model, save_checkpoint
from phi_tokenizer import Tokenizer

END = "<|endoftext|>"
TEXT = "Der Bär süßt Öl für 日本語 und 😀😀 Ärger. The bear was glad, the bear was big. " * 4


def random_model(seed: int = 0, **config: Any) -> GPT:
    """A model whose every part matters: a new one is close to the identity."""
    settings = {"n_embd": 16, "n_layer": 2, "n_head": 2, "seq_len": 16, "vocab_size": 300}
    model = build_model(ModelConfig(**(settings | config)), seed=seed)
    rng = np.random.default_rng(seed)
    for name, value in model.parameters.items():
        noise = rng.standard_normal(value.shape)
        value[...] = 1 + 0.3 * noise if name.endswith("gain") else noise * value.shape[-1] ** -0.5
    return model


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """300 tokens, some of them parts of characters, and an end-of-text token."""
    return Tokenizer.train(TEXT, vocab_size=300, special_tokens=[END])


@pytest.fixture(scope="session")
def byte_tokenizer() -> Tokenizer:
    """Every byte a token of its own, so that no character is whole until its last token."""
    return Tokenizer.train("abc", vocab_size=257, special_tokens=[END])


@pytest.fixture
def make_model() -> Callable[..., GPT]:
    """random_model: test modules cannot import each other."""
    return random_model


@pytest.fixture
def checkpoint(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    """A .phi with random weights and the tokenizer of 300."""
    path = tmp_path / "random.phi"
    save_checkpoint(path, random_model(1), step=7, tokenizer=tokenizer.to_bytes())
    return path


@pytest.fixture
def byte_checkpoint(tmp_path: Path, byte_tokenizer: Tokenizer) -> Path:
    """A .phi with random weights over single bytes."""
    path = tmp_path / "bytes.phi"
    save_checkpoint(path, random_model(2, vocab_size=257), tokenizer=byte_tokenizer.to_bytes())
    return path
