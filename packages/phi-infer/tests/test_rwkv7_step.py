"""An RWKV-7 token by token gives what it gives for the whole text, from any saved state."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from phi_infer import load
from phi_infer.rwkv7_step import RWKV7Step
from phi_model import CheckpointError, ConfigError, ModelConfig, RWKV7State, save_checkpoint

RWKV7 = {"kind": "rwkv7"}
SHAPES = [
    {},
    {"tied_head": False},
    {"n_layer": 1, "n_head": 1},
    {"n_layer": 3, "n_embd": 12, "n_head": 4, "n_hidden": 20, "norm_eps": 1e-3},
]


@pytest.mark.parametrize("changes", SHAPES)
def test_equals_the_whole_sequence_at_every_position(make_model, changes):
    """Also beyond the trained length, which means nothing to it."""
    model = make_model(3, **RWKV7, **changes)
    ids = np.random.default_rng(0).integers(0, 300, 40)
    whole = model.logits(ids)[0]
    step = RWKV7Step(model.config, model.parameters)
    for position, token in enumerate(ids):
        assert step.position == position
        np.testing.assert_allclose(step(int(token)), whole[position], rtol=5e-4, atol=2e-4)


def test_the_context_matters_to_these_models(make_model):
    """Without this the test above could pass with a state that is never read."""
    model = make_model(3, **RWKV7)
    a = model.logits([5, 6, 7])[0, -1]
    b = model.logits([9, 6, 7])[0, -1]
    assert np.abs(a - b).max() > 1e-2


def test_a_saved_state_goes_on_to_the_last_bit(make_model, tmp_path):
    model = make_model(3, **RWKV7)
    step, other = (RWKV7Step(model.config, model.parameters) for _ in range(2))
    for token in (5, 6, 7, 8):
        step(token)
    step.save_state(tmp_path / "state")
    other(99)
    other.load_state(tmp_path / "state")
    assert other.position == 4
    for token in (1, 2, 3):
        np.testing.assert_array_equal(step(token), other(token))


def test_a_state_of_another_model_is_refused(make_model, tmp_path):
    model = make_model(3, **RWKV7)
    step = RWKV7Step(model.config, model.parameters)
    RWKV7State.zeros(ModelConfig.preset("rwkv7-1m")).save(tmp_path / "state")
    with pytest.raises(ConfigError, match="shapes"):
        step.load_state(tmp_path / "state")
    (tmp_path / "state").write_bytes(b"not a state")
    with pytest.raises(CheckpointError, match="not a saved state"):
        step.load_state(tmp_path / "state")


def test_neither_state_nor_memory_grows(make_model):
    model = make_model(3, **RWKV7)
    step = RWKV7Step(model.config, model.parameters)
    for token in range(20):
        step(token)
    size = step.state.nbytes
    tracemalloc.start()
    try:
        step(1)
        before = tracemalloc.get_traced_memory()[0]
        for token in range(200):
            step(token)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert step.state.nbytes == size
    assert grown < 2000


def test_the_position_is_only_a_number(make_model):
    model = make_model(3, **RWKV7)
    near, far = (RWKV7Step(model.config, model.parameters) for _ in range(2))
    far.state.position = 1_000_000
    for token in (5, 6, 7):
        np.testing.assert_array_equal(near(token), far(token))
    assert far.position == 1_000_003


def test_a_generator_streams_either_kind_alike(make_model, tokenizer, tmp_path):
    model = make_model(1, **RWKV7)
    save_checkpoint(tmp_path / "a.phi", model, tokenizer=tokenizer.to_bytes())
    generator = load(tmp_path / "a.phi")
    text = generator.generate("The bear", max_tokens=30, seed=4)
    assert text == "".join(generator.stream("The bear", max_tokens=30, seed=4))
    greedy = generator.generate("The bear", max_tokens=5, temperature=0)
    ids = generator.prompt_ids("The bear")
    for _ in range(5):
        best = int(model.logits(ids)[0, -1, : tokenizer.n_vocab].argmax())
        if best == tokenizer.special_tokens["<|endoftext|>"]:
            break
        ids.append(best)
    assert greedy == tokenizer.decode(ids[len(generator.prompt_ids("The bear")) :])
