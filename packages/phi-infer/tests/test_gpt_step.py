"""One token at a time with a cache gives what the model gives for the whole sequence."""

from __future__ import annotations

import numpy as np
import pytest

from phi_infer.gpt_step import GPTStep

SHAPES = [
    {},
    {"tied_head": False},
    {"n_layer": 1, "n_head": 1},
    {"n_head": 8, "n_hidden": 20, "rope_base": 100.0, "norm_eps": 1e-3},
    {"n_head": 4, "n_kv_head": 2},
    {"n_head": 8, "n_kv_head": 1},
    {"qk_norm": True},
    {"rope_scaling": 4.0, "rope_base": 100.0},
    {"n_head": 4, "n_kv_head": 2, "qk_norm": True, "rope_scaling": 1.5, "tied_head": False},
]


@pytest.mark.parametrize("changes", SHAPES)
def test_equals_the_whole_sequence_at_every_position(make_model, changes):
    model = make_model(3, **changes)
    ids = np.random.default_rng(0).integers(0, 300, 16)
    whole = model.logits(ids)[0]
    step = GPTStep(model.config, model.parameters)
    for position, token in enumerate(ids):
        assert step.position == position
        np.testing.assert_allclose(step(int(token)), whole[position], rtol=1e-4, atol=2e-5)


def test_the_context_matters_to_these_models(make_model):
    """Without this the test above could pass with a cache that is never read."""
    model = make_model(3)
    a = model.logits([5, 6, 7])[0, -1]
    b = model.logits([9, 6, 7])[0, -1]
    assert np.abs(a - b).max() > 1e-2


@pytest.mark.parametrize("changes", [{"qk_norm": True}, {"rope_scaling": 4.0, "rope_base": 100.0}])
def test_the_choices_matter_to_these_models(make_model, changes):
    """As above: a step that ignored them would have to be seen."""
    model, plain = make_model(3, **changes), make_model(3, rope_base=changes.get("rope_base", 1e4))
    for name, value in plain.parameters.items():
        value[...] = model.parameters[name]
    assert np.abs(model.logits([5, 6, 7]) - plain.logits([5, 6, 7])).max() > 1e-2


def test_shared_keys_take_less_room(make_model):
    model = make_model(3, n_head=4, n_kv_head=1)
    step = GPTStep(model.config, model.parameters)
    assert step._cache.rows.shape == (2, 16, 4 + 4 + 1)  # keys, values, the 1 behind them


@pytest.mark.parametrize("seq_len", [1, 2, 5, 8])
def test_beyond_its_context_one_layer_sees_a_sliding_window(make_model, seq_len):
    """Keys and values of one layer depend on their own token alone, so that the last seq_len
    tokens, started afresh, are the same thing: distances are all that RoPE sees.
    """
    choices = {"n_head": 4, "n_kv_head": 2, "qk_norm": True, "rope_scaling": 2.0}
    model = make_model(4, n_layer=1, seq_len=seq_len, **(choices if seq_len == 5 else {}))
    ids = np.random.default_rng(1).integers(0, 300, 4 * seq_len + 3)
    step = GPTStep(model.config, model.parameters)
    for end, token in enumerate(ids, start=1):
        window = ids[max(0, end - seq_len) : end]
        expected = model.logits(window)[0, -1]
        np.testing.assert_allclose(step(int(token)), expected, rtol=1e-4, atol=5e-5)


def test_beyond_its_context_deeper_layers_keep_what_they_saw(make_model):
    """The same definition by brute force, for two layers: attention of every layer over the last
    seq_len positions, with no cache.
    """
    model = make_model(5, seq_len=4)
    ids = np.random.default_rng(2).integers(0, 300, 13)
    expected = _windowed_logits(model, ids, window=4)
    step = GPTStep(model.config, model.parameters)
    for position, token in enumerate(ids):
        np.testing.assert_allclose(step(int(token)), expected[position], rtol=1e-4, atol=5e-5)


def test_far_positions_stay_exact(make_model):
    """A text may be far longer than the context: angles are computed in float64."""
    model = make_model(6, n_layer=1)
    ids = np.random.default_rng(3).integers(0, 300, 16)
    step = GPTStep(model.config, model.parameters)
    step.position = 16 * 1_000_000
    for token in ids:
        logits = step(int(token))
    np.testing.assert_allclose(logits, model.logits(ids)[0, -1], rtol=1e-4, atol=5e-5)


def test_large_weights_raise_no_warning(make_model):
    model = make_model(7)
    model.parameters["layers.0.mlp.gate_up"][...] *= 1000
    step = GPTStep(model.config, model.parameters)
    for token in (1, 2, 3):
        logits = step(token)
    whole = model.logits([1, 2, 3])[0, -1]
    np.testing.assert_allclose(logits, whole, rtol=1e-3, atol=1e-3 * np.abs(whole).max())


def _windowed_logits(model, ids, *, window):
    """Loops over positions and heads, in float64."""
    c = model.config
    p = {name: np.array(value, np.float64) for name, value in model.parameters.items()}
    n, d = len(ids), c.head_size

    def norm(x, gain):
        return gain * x / np.sqrt((x * x).mean(-1, keepdims=True) + c.norm_eps)

    def turn(x):
        frequencies = c.rope_base ** (-2.0 * np.arange(d // 2) / d)
        angles = np.arange(n)[:, None] * frequencies
        first, second = x[:, : d // 2], x[:, d // 2 :]
        return np.concatenate(
            [
                first * np.cos(angles) - second * np.sin(angles),
                second * np.cos(angles) + first * np.sin(angles),
            ],
            axis=1,
        )

    x = p["embedding"][ids]
    for i in range(c.n_layer):
        qkv = norm(x, p[f"layers.{i}.attention_norm.gain"]) @ p[f"layers.{i}.attention.qkv"].T
        q, k, v = np.split(qkv, 3, axis=1)
        heads = []
        for h in range(c.n_head):
            part = slice(h * d, (h + 1) * d)
            qh, kh, vh = turn(q[:, part]), turn(k[:, part]), v[:, part]
            rows = []
            for t in range(n):
                seen = slice(max(0, t - window + 1), t + 1)
                weights = np.exp(kh[seen] @ qh[t] / np.sqrt(d))
                rows.append(weights @ vh[seen] / weights.sum())
            heads.append(np.array(rows))
        x = x + np.concatenate(heads, axis=1) @ p[f"layers.{i}.attention.out"].T
        gate_up = norm(x, p[f"layers.{i}.mlp_norm.gain"]) @ p[f"layers.{i}.mlp.gate_up"].T
        gate, up = np.split(gate_up, 2, axis=1)
        x = x + (gate / (1 + np.exp(-gate)) * up) @ p[f"layers.{i}.mlp.down"].T
    return norm(x, p["final_norm.gain"]) @ p["embedding"].T
