"""An RWKV-7 token by token gives what it gives for the whole text, from any saved state."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from phi_infer import load
from phi_infer.rwkv7_step import RWKV7Step
from phi_infer.steps import fold, new_step
from phi_model import CheckpointError, ConfigError, ModelConfig, RWKV7State, save_checkpoint
from phi_model.rwkv7.parameters import MIXES
from phi_model.rwkv7.reference import HEAD_NORM_EPS, LEAST_LOG_DECAY, LEAST_NORM

R, W, K, V, A, G = range(len(MIXES))
RWKV7 = {"kind": "rwkv7"}
SHAPES = [
    {},
    {"tied_head": False},
    {"n_layer": 1, "n_head": 1},
    {"n_layer": 3, "n_embd": 12, "n_head": 4, "n_hidden": 20, "norm_eps": 1e-3},
    {"n_embd": 192, "n_head": 4, "vocab_size": 12_000},  # matrices that lie by rows
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


@pytest.mark.parametrize("changes", SHAPES)
def test_equals_the_plain_step(make_model, changes):
    model = make_model(8, **RWKV7, **changes)
    step = RWKV7Step(model.config, model.parameters)
    plain = PlainRWKV7Step(model.config, model.parameters)
    for token in np.random.default_rng(4).integers(0, 300, 100):
        expected = plain(int(token))
        np.testing.assert_allclose(step(int(token)), expected, rtol=5e-4, atol=2e-4)
    for name, array in plain.state.arrays.items():
        np.testing.assert_allclose(step.state.arrays[name], array, rtol=1e-3, atol=5e-4)


@pytest.mark.parametrize("changes", SHAPES)
@pytest.mark.parametrize("pieces", [[300], [1, 299], [7, 2, 290, 1]])
def test_prefill_equals_one_by_one(make_model, changes, pieces):
    model = make_model(3, **RWKV7, **changes)
    ids = np.random.default_rng(0).integers(0, 300, 300)
    weights = fold(model.config, model.parameters)
    one, many = new_step(weights), new_step(weights)
    for end in np.cumsum(pieces):
        piece = ids[one.position : end]
        for token in piece:
            expected = one(int(token))
        np.testing.assert_allclose(many.prefill(piece), expected, rtol=5e-4, atol=2e-4)
        assert many.position == one.position == end


def test_a_copy_goes_on_by_itself(make_model):
    model = make_model(3, **RWKV7)
    step = new_step(fold(model.config, model.parameters))
    step.prefill([5, 6, 7])
    copy = step.copy()
    expected = [step(token) for token in (1, 2)]
    step(99)
    for token, logits in zip((1, 2), expected, strict=True):
        np.testing.assert_array_equal(copy(token), logits)


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


class PlainRWKV7Step:
    """The slow twin: one line of mathematics a line, nothing folded, nothing kept ready."""

    def __init__(self, config, parameters):
        self.config = config
        p = parameters
        self._embedding = p["embedding"]
        self._head = p["embedding" if config.tied_head else "head"]
        self._first_norm = p["embedding_norm.gain"], p["embedding_norm.bias"]
        self._final_norm = p["final_norm.gain"], p["final_norm.bias"]
        self._layers = [_LayerWeights(p, i) for i in range(config.n_layer)]
        self.state = RWKV7State.zeros(config)

    def __call__(self, token):
        """Logits [V] after `token`; takes its place at the end of the text."""
        state = self.state
        x = self._norm(self._embedding[token], self._first_norm)
        first_values = None
        for i, layer in enumerate(self._layers):
            h = self._norm(x, layer.time_norm)
            mixed = (state.time_shift[0, i] - h) * layer.mixes
            mixed += h
            state.time_shift[0, i] = h
            y, first_values = self._time_mix(mixed, layer, state.wkv[0, i], first_values)
            x = x + y
            h = self._norm(x, layer.channel_norm)
            root = layer.key @ (h + (state.channel_shift[0, i] - h) * layer.mix_k)
            state.channel_shift[0, i] = h
            np.maximum(root, 0, out=root)
            root *= root
            x += layer.value @ root
        state.position += 1
        logits = self._head @ self._norm(x, self._final_norm)
        return logits

    def _time_mix(self, mixed, layer, wkv, first_values):
        """What goes into the residual stream [C], and the first layer's values; moves wkv on.

        wkv [H, D, D]: rows are channels of the values, columns of the keys.
        """
        heads = len(wkv), wkv.shape[1]
        r, k0, v = np.matmul(layer.rkv, mixed[layer.order, :, None])[:, :, 0]
        decay = _sigmoid(layer.up["w"] @ np.tanh(layer.down["w"] @ mixed[W]) + layer.bias["w"])
        a = _sigmoid(layer.up["a"] @ (layer.down["a"] @ mixed[A]) + layer.bias["a"])
        gate = layer.up["g"] @ _sigmoid(layer.down["g"] @ mixed[G])
        if first_values is None:
            first_values = v
        else:
            share = _sigmoid(layer.up["v"] @ (layer.down["v"] @ mixed[V]) + layer.bias["v"])
            v = v + (first_values - v) * share
        kappa = (k0 * layer.k_k).reshape(heads)
        kappa /= np.maximum(np.sqrt(np.vecdot(kappa, kappa)), np.float32(LEAST_NORM))[:, None]
        k = k0 * (1 + (a - 1) * layer.k_a)
        r, k, v_heads, a = (part.reshape(heads) for part in (r, k, v, a))
        read = wkv @ kappa[:, :, None]
        wkv *= np.exp(np.float32(LEAST_LOG_DECAY) * decay).reshape(len(wkv), 1, -1)
        wkv -= read * (kappa * a)[:, None, :]
        wkv += v_heads[:, :, None] * k[:, None, :]
        y = (wkv @ r[:, :, None])[:, :, 0]
        y = _normalise(y, HEAD_NORM_EPS).ravel() * layer.head_norm[0] + layer.head_norm[1]
        y += (np.vecdot(r * layer.r_k.reshape(heads), k)[:, None] * v_heads).ravel()
        y *= gate
        return layer.output @ y, first_values

    def _norm(self, x, gain_bias):
        y = _normalise(x, self.config.norm_eps)
        y *= gain_bias[0]
        y += gain_bias[1]
        return y


class _LayerWeights:
    def __init__(self, p, i):
        layer, part = f"layers.{i}", f"layers.{i}.time_mix"
        self.time_norm = p[f"{layer}.time_norm.gain"], p[f"{layer}.time_norm.bias"]
        self.mixes = np.stack([p[f"{part}.mix_{name}"] for name in MIXES])
        self.rkv = np.stack([p[f"{part}.{name}"] for name in ("receptance", "key", "value")])
        self.order = np.array([R, K, V])
        loras = [name for name in "wavg" if f"{part}.{name}_up" in p]  # the first layer has no v
        self.down = {name: p[f"{part}.{name}_down"] for name in loras}
        self.up = {name: p[f"{part}.{name}_up"] for name in loras}
        self.bias = {name: p[f"{part}.{name}_bias"] for name in loras if name != "g"}
        self.k_k, self.k_a, self.r_k = (p[f"{part}.{name}"] for name in ("k_k", "k_a", "r_k"))
        self.head_norm = p[f"{part}.head_norm.gain"], p[f"{part}.head_norm.bias"]
        self.output = p[f"{part}.output"]
        self.channel_norm = p[f"{layer}.channel_norm.gain"], p[f"{layer}.channel_norm.bias"]
        self.mix_k = p[f"{layer}.channel_mix.mix_k"]
        self.key, self.value = p[f"{layer}.channel_mix.key"], p[f"{layer}.channel_mix.value"]


def _sigmoid(x):
    """By tanh, which cannot overflow."""
    x *= np.float32(0.5)
    np.tanh(x, out=x)
    x *= np.float32(0.5)
    x += np.float32(0.5)
    return x


def _normalise(x, eps):
    """x [..., C] less its mean, over its standard deviation."""
    centred = x - np.add.reduce(x, axis=-1, keepdims=True) / np.float32(x.shape[-1])
    variance = np.vecdot(centred, centred) / np.float32(x.shape[-1])
    centred /= np.sqrt(variance + np.float32(eps))[..., None]
    return centred
