"""The loss of a stream against a slow twin that predicts one target at a time."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest

from phi_model import ModelConfig, build_model
from phi_train import evaluate

MODULE = importlib.import_module("phi_train.evaluate")  # the package's name is the function
V = 23


@pytest.fixture
def model():
    config = ModelConfig(vocab_size=V, n_embd=8, n_layer=1, n_head=2, seq_len=8)
    model = build_model(config, seed=3)
    rng = np.random.default_rng(0)
    for name, value in model.parameters.items():
        model.parameters[name][...] = value + 0.3 * rng.standard_normal(value.shape)
    return model


def _slow_loss(model, stream, length):
    """Every target once, from the tokens before it in its own window."""
    tokens = [stream.end_token, *stream.ids.tolist()]
    nats = []
    for place in range(len(stream.ids)):
        start = place - place % length
        logits = model.logits(tokens[start : place + 1])[0, -1].astype(np.float64)
        shifted = logits - logits.max()
        nats.append(math.log(np.exp(shifted).sum()) - shifted[tokens[place + 1]])
    return sum(nats) / len(nats)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 50, 64])
@pytest.mark.parametrize("length", [None, 1, 5, 8, 13])
def test_equals_the_slow_twin(model, stream, size, length):
    text = stream(np.random.default_rng(size).integers(0, V, size), V)
    result = evaluate(model, text, seq_len=length)
    assert result.loss == pytest.approx(_slow_loss(model, text, length or 8), rel=1e-5)
    assert result.tokens == size
    assert result.perplexity == pytest.approx(math.exp(result.loss))
    assert result.bits_per_byte == pytest.approx(result.loss * size / math.log(2) / text.text_bytes)


def test_how_many_windows_at_once_does_not_matter(model, stream, monkeypatch):
    text = stream(np.random.default_rng(1).integers(0, V, 300), V)
    losses = []
    for at_once in (1, 8, 24, 100, 2048):
        monkeypatch.setattr(MODULE, "TOKENS_AT_ONCE", at_once)
        losses.append(evaluate(model, text).loss)
    assert losses == pytest.approx([losses[0]] * 5, rel=1e-6)


def test_evaluation_changes_nothing(model, stream):
    text = stream(np.random.default_rng(1).integers(0, V, 100), V)
    before = model.parameters.flat.copy()
    first = evaluate(model, text)
    assert evaluate(model, text) == first
    assert np.array_equal(model.parameters.flat, before)


def test_as_dict_has_what_json_shows(model, stream):
    result = evaluate(model, stream([1, 2, 3], V))
    keys = {"loss", "perplexity", "bits_per_byte", "tokens", "documents", "text_bytes"}
    assert set(result.as_dict()) == keys
