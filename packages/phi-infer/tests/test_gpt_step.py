"""One token at a time with a cache gives what the model gives for the whole sequence."""

from __future__ import annotations

import numpy as np
import pytest

from phi_infer.gpt_cache import ContextError
from phi_infer.gpt_step import GPTStep
from phi_infer.steps import fold, new_step
from phi_model import CheckpointError, ConfigError
from phi_model.rope import rope_angles

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
    {"n_embd": 192, "n_head": 4, "vocab_size": 12_000},  # matrices that lie by rows
]

TOLERANCE = {"rtol": 1e-4, "atol": 5e-5}


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
    assert step._cache.keys.shape == (2, 1, 16, 4)
    assert step._cache.values.shape == (2, 1, 16, 4 + 1)  # with the 1 behind them


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


@pytest.mark.parametrize("changes", SHAPES)
def test_equals_the_plain_step_far_beyond_its_context(make_model, changes):
    model = make_model(8, **changes)
    step = GPTStep(model.config, model.parameters)
    plain = PlainGPTStep(model.config, model.parameters)
    for token in np.random.default_rng(4).integers(0, 300, 70):
        np.testing.assert_allclose(step(int(token)), plain(int(token)), rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("changes", SHAPES)
@pytest.mark.parametrize("pieces", [[16], [1, 15], [9, 7], [5, 5, 5, 1]])
def test_prefill_equals_the_whole_sequence(make_model, changes, pieces):
    model = make_model(3, **changes)
    ids = np.random.default_rng(0).integers(0, 300, 16)
    whole = model.logits(ids)[0]
    step = GPTStep(model.config, model.parameters)
    for end in np.cumsum(pieces):
        logits = step.prefill(ids[step.position : end])
        assert step.position == end
        np.testing.assert_allclose(logits, whole[end - 1], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("pieces", [[64], [65], [30, 200], [256], [257], [520], [300, 1, 219]])
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_prefill_of_a_long_text_equals_the_whole_sequence(make_model, pieces, scale):
    """Over the edges of chunks and of attention's parts, which extreme scores go through twice."""
    model = make_model(13, n_head=4, n_kv_head=2, seq_len=521)
    model.parameters["layers.0.attention.qkv"][: 16 + 8] *= scale
    ids = np.random.default_rng(9).integers(0, 300, sum(pieces) + 1)
    whole = model.logits(ids)[0]
    tolerance = {"rtol": 1e-2, "atol": 1e-3 * np.abs(whole).max()} if scale > 1 else TOLERANCE
    step = GPTStep(model.config, model.parameters)
    for end in np.cumsum(pieces):
        logits = step.prefill(ids[step.position : end])
        np.testing.assert_allclose(logits, whole[end - 1], **tolerance)
    np.testing.assert_allclose(step(int(ids[-1])), whole[-1], **tolerance)


@pytest.mark.parametrize("window", [1, 3, 16, 40, 64])
@pytest.mark.parametrize("size", [2, 7, 33, 200])
def test_prefill_through_the_ring_equals_one_by_one(make_model, window, size):
    """Any window, also wider than training's; pieces that overwrite what their start still sees."""
    model = make_model(9, n_head=4, n_kv_head=2, qk_norm=True)
    ids = np.random.default_rng(5).integers(0, 300, 200)
    weights = fold(model.config, model.parameters)
    one, many = new_step(weights, window=window), new_step(weights, window=window)
    for first in range(0, 200, size):
        piece = ids[first : first + size]
        for token in piece:
            expected = one(int(token))
        np.testing.assert_allclose(many.prefill(piece), expected, rtol=1e-4, atol=5e-5)
    assert one.position == many.position == 200
    np.testing.assert_allclose(many(7), one(7), rtol=1e-4, atol=5e-5)


def test_a_wider_window_is_the_model_at_that_length(make_model):
    model, long = make_model(10), make_model(10, seq_len=50)
    ids = np.random.default_rng(6).integers(0, 300, 50)
    step = new_step(fold(model.config, model.parameters), window=50)
    np.testing.assert_allclose(step.prefill(ids), long.logits(ids)[0, -1], rtol=1e-4, atol=5e-5)


def test_a_text_may_be_bound_to_its_context(make_model):
    model = make_model(3)
    weights = fold(model.config, model.parameters)
    step = new_step(weights, window=0)
    step.prefill(range(15))
    assert step.copy()(1).shape == (300,)
    with pytest.raises(ContextError, match="context of 16 tokens"):
        step.prefill([1, 2])
    assert step.position == 15
    step(1)
    with pytest.raises(ContextError, match="let the context slide"):
        step(2)
    with pytest.raises(ConfigError, match="window is -1"):
        new_step(weights, window=-1)


@pytest.mark.parametrize("before", [3, 16, 37])
def test_a_copy_and_a_saved_state_go_on_to_the_last_bit(make_model, tmp_path, before):
    model = make_model(3)
    weights = fold(model.config, model.parameters)
    step, other = new_step(weights), new_step(weights)
    for token in range(before):
        step(token)
    step.save_state(tmp_path / "state")
    copy = step.copy()
    for token in range(40):
        other(token)
    other.load_state(tmp_path / "state")
    assert other.position == copy.position == before
    for token in (1, 2, 3):
        expected = step(token)
        np.testing.assert_array_equal(copy(token), expected)
        np.testing.assert_array_equal(other(token), expected)


def test_states_that_do_not_fit_are_refused(make_model, tmp_path):
    model, wide = make_model(3), make_model(3, n_embd=32)
    step = GPTStep(model.config, model.parameters)
    step.prefill([1, 2, 3])
    step.save_state(tmp_path / "state")
    with pytest.raises(ConfigError, match="this model needs"):
        GPTStep(wide.config, wide.parameters).load_state(tmp_path / "state")
    with pytest.raises(ConfigError, match="a window of 16"):
        GPTStep(model.config, model.parameters, window=8).load_state(tmp_path / "state")
    whole = (tmp_path / "state").read_bytes()
    for damaged in (b"", b"not a state", whole[:-9], whole[:-9] + b"123456789"):
        (tmp_path / "state").write_bytes(damaged)
        with pytest.raises(CheckpointError):
            step.load_state(tmp_path / "state")
    assert step.position == 3


@pytest.mark.parametrize("scale", [30.0, -30.0, 100.0])
def test_extreme_scores_fall_back_safely(make_model, scale):
    """Scores of thousands: exp without a maximum overflows, or underflows everywhere."""
    model = make_model(11, n_head=4, n_kv_head=2)
    rows = model.parameters["layers.1.attention.qkv"][: 16 + 8]
    rows[:16] *= scale
    rows[16:] *= abs(scale)
    ids = np.random.default_rng(7).integers(0, 300, 16)
    whole = model.logits(ids)[0]
    step, many = (GPTStep(model.config, model.parameters) for _ in range(2))
    tolerance = {"rtol": 1e-2, "atol": 1e-3 * np.abs(whole).max()}
    for position, token in enumerate(ids):
        np.testing.assert_allclose(step(int(token)), whole[position], **tolerance)
    np.testing.assert_allclose(many.prefill(ids), whole[-1], **tolerance)


def test_scores_far_below_zero_for_every_key(make_model):
    """Where even the largest weight is 0 or denormal without its maximum."""
    model = make_model(12, n_layer=1, n_head=1)
    qkv = model.parameters["layers.0.attention.qkv"]
    qkv[16:32] = -qkv[:16] * 6
    ids = np.array([5, 5, 5, 5])
    whole = model.logits(ids)[0]
    step = GPTStep(model.config, model.parameters)
    for position, token in enumerate(ids):
        np.testing.assert_allclose(step(int(token)), whole[position], rtol=1e-3, atol=1e-3)
    many = GPTStep(model.config, model.parameters)
    np.testing.assert_allclose(many.prefill(ids), whole[-1], rtol=1e-3, atol=1e-3)


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


class PlainGPTStep:
    """The slow twin: one line of mathematics a line, nothing folded, nothing kept ready."""

    def __init__(self, config, parameters):
        c = self.config = config
        self._embedding = parameters["embedding"]
        self._head = parameters["embedding" if c.tied_head else "head"]
        self._final_gain = parameters["final_norm.gain"]
        self._layers = [_LayerWeights(parameters, i) for i in range(c.n_layer)]
        shape = (c.n_layer, c.n_kv_head, c.seq_len, c.head_size)
        self._keys = np.zeros(shape, np.float32)
        self._values = np.zeros(shape, np.float32)
        self._frequencies = rope_angles(2, c.head_size, c.rope_base, c.rope_scaling)[:, 1]
        self.position = 0

    def __call__(self, token):
        """Logits [V] after `token`; takes its place at the end of the text."""
        c = self.config
        slot = self.position % c.seq_len
        filled = min(self.position + 1, c.seq_len)
        angles = self.position * self._frequencies
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        x = self._embedding[token].copy()
        for i, layer in enumerate(self._layers):
            h = self._norm(x, layer.attention_gain)
            qkv = (layer.qkv @ h).reshape(-1, c.head_size)
            q, k = qkv[: c.n_head], qkv[c.n_head : -c.n_kv_head]
            if c.qk_norm:
                q, k = self._norm_heads(q, layer.q_gain), self._norm_heads(k, layer.k_gain)
            self._keys[i, :, slot] = _turn(k, cos, sin)
            self._values[i, :, slot] = qkv[-c.n_kv_head :]
            attended = _attend(
                _turn(q, cos, sin), self._keys[i, :, :filled], self._values[i, :, :filled]
            )
            x += layer.attention_out @ attended
            gate, up = np.split(layer.gate_up @ self._norm(x, layer.mlp_gain), 2)
            x += layer.down @ (gate * (0.5 + 0.5 * np.tanh(0.5 * gate)) * up)  # tanh: no overflow
        self.position += 1
        logits = self._head @ self._norm(x, self._final_gain)
        return logits

    def _norm(self, x, gain):
        return gain * x * np.float32((float(x @ x) / x.size + self.config.norm_eps) ** -0.5)

    def _norm_heads(self, x, gain):
        """Each head of x [H, D] by itself."""
        mean_square = (x * x).mean(axis=1, keepdims=True)
        normed = gain * x / np.sqrt(mean_square + np.float32(self.config.norm_eps))
        return normed


class _LayerWeights:
    def __init__(self, p, i):
        self.attention_gain = p[f"layers.{i}.attention_norm.gain"]
        self.qkv = p[f"layers.{i}.attention.qkv"]  # rows: heads of queries, of keys, of values
        if f"layers.{i}.attention.q_norm.gain" in p:
            self.q_gain = p[f"layers.{i}.attention.q_norm.gain"]
            self.k_gain = p[f"layers.{i}.attention.k_norm.gain"]
        self.attention_out = p[f"layers.{i}.attention.out"]
        self.mlp_gain = p[f"layers.{i}.mlp_norm.gain"]
        self.gate_up = p[f"layers.{i}.mlp.gate_up"]
        self.down = p[f"layers.{i}.mlp.down"]


def _turn(x, cos, sin):
    """RoPE on [H, D], halves as planes."""
    half = x.shape[1] // 2
    first, second = x[:, :half], x[:, half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1)


def _attend(q, keys, values):
    """Attention of one position's queries [H, D] over keys and values [K, n, D]; returns [C].

    H / K heads of queries in a row share a head of keys. The order of the places in the ring does
    not matter: a sum has no order.
    """
    q = q.reshape(len(keys), -1, q.shape[1])
    scores = np.matmul(keys, q.swapaxes(1, 2)) * np.float32(q.shape[2] ** -0.5)
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    attended = np.matmul(p.swapaxes(1, 2), values).ravel()
    return attended
