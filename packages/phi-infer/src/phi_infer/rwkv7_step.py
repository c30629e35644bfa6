"""An RWKV-7 one token at a time: its state never grows, so that no token costs more than another.

Forward only, vectors not batches. The arithmetic is that of phi_model.rwkv7, whose whole
sequences give the same logits; buffers and views are made once, constants are folded into the
weights (phi_infer.rwkv7_weights), and each line below is one call of numpy. The plain step it
must equal is kept in tests/test_rwkv7_step.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.matrices import multiplier
from phi_infer.rwkv7_prefill import prefill
from phi_infer.rwkv7_weights import RWKV7Layer, RWKV7Weights
from phi_model import ModelConfig, RWKV7State
from phi_model.rwkv7.reference import LEAST_NORM

__all__ = ["RWKV7Step"]

Array = NDArray[Any]


class RWKV7Step:
    """The state of one text: feed it a token, it returns the logits of the next.

    parameters: a model's, or its RWKV7Weights, which steps share.
    """

    def __init__(self, config: ModelConfig, parameters: Mapping[str, Array] | RWKV7Weights) -> None:
        c = self.config = config
        w = parameters if isinstance(parameters, RWKV7Weights) else RWKV7Weights(config, parameters)
        self.weights = w
        self._with_eps = np.full(c.n_embd + 1, w.eps, np.float32)
        self._with_one = np.ones(c.n_embd + 1, np.float32)
        self._square, self._root = np.zeros((), np.float32), np.zeros((), np.float32)
        self._update = np.zeros(c.n_embd, np.float32)
        self._hidden = np.zeros(c.n_hidden, np.float32)
        self._zeros = np.zeros(c.n_hidden, np.float32)
        self._step_layers: list[tuple[RWKV7Layer, Array, Array, Array]] = []
        self._state = RWKV7State.zeros(config)

    @property
    def state(self) -> RWKV7State:
        """What is remembered of the text; changes in place."""
        return self._state

    @state.setter
    def state(self, state: RWKV7State) -> None:
        state.check(self.config, 1)
        self._state = state
        self._step_layers = []

    @property
    def position(self) -> int:
        """Tokens read so far; nothing depends on it."""
        return self._state.position

    def prefill(self, ids: Sequence[int] | Array) -> Array:
        """Reads ids, one or more, by matrix products; the logits [V] after the last."""
        if len(ids) == 1:
            return self(int(ids[0]))
        return prefill(self.weights, self._state, ids)

    def memory(self) -> list[Array]:
        """What is remembered of the text: the state's arrays, themselves."""
        return list(self._state.arrays.values())

    def copy(self) -> RWKV7Step:
        """A step that goes on from here by itself; the weights are shared."""
        other = RWKV7Step(self.config, self.weights)
        other.state = self._state.copy()
        return other

    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Writes what is remembered of the text to a small file."""
        self._state.save(path)

    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Goes on from a saved state. Raises CheckpointError or ConfigError."""
        self.state = RWKV7State.load(path)

    def __call__(self, token: int) -> Array:
        """Logits [V] after `token`, a new array; takes its place at the end of the text."""
        if not self._step_layers:
            self._enter_state()
        x, h = self._with_eps[:-1], self._with_one[:-1]
        x[...] = self.weights.embed(np.array([token]))[0]
        first_values: Array | None = None
        for layer, time_shift, channel_shift, wkv in self._step_layers:
            self._normalise(x, h)
            first_values = self._time_mix(layer, x, h, time_shift, wkv, first_values)
            self._normalise(x, h)
            self._channel_mix(layer, x, h, channel_shift)
        self._normalise(x, h)
        self._state.position += 1
        logits: Array = self._to_logits(self.weights.head)
        return logits

    def _enter_state(self) -> None:
        """Each layer with its part of the state, and what multiplies by its matrices."""
        s, w = self._state, self.weights
        parts = (w.layers, s.time_shift[0], s.channel_shift[0], s.wkv[0])
        self._step_layers = list(zip(*parts, strict=True))
        self._buffers, layer = _Buffers(w), w.layers[0]
        self._to_channel_key = multiplier(self._buffers.low_mixed, layer.channel_key)
        self._to_channel_value = multiplier(self._hidden, layer.channel_value)
        self._to_logits = multiplier(self._with_one, w.head)

    def _normalise(self, x: Array, h: Array) -> None:
        """x, which has no mean, over its size."""
        with_eps, square, root = self._with_eps, self._square, self._root
        with_eps.dot(with_eps, square)
        np.sqrt(square, root)
        np.divide(x, root, h)

    def _channel_mix(self, layer: RWKV7Layer, x: Array, h: Array, before: Array) -> None:
        multiply, add = np.multiply, np.add
        root, mixed, update = self._hidden, self._buffers.low_mixed, self._update
        gain, bias = layer.channel_norm
        multiply(h, gain, h)
        add(h, bias, h)
        np.subtract(before, h, mixed)
        multiply(mixed, layer.mix_k, mixed)
        add(mixed, h, mixed)
        before[...] = h
        self._to_channel_key(layer.channel_key, root)
        np.maximum(root, self._zeros, out=root)
        multiply(root, root, root)
        self._to_channel_value(layer.channel_value, update)
        add(x, update, x)

    def _time_mix(
        self,
        layer: RWKV7Layer,
        x: Array,
        h: Array,
        before: Array,
        wkv: Array,
        first_values: Array | None,
    ) -> Array:
        """Adds to x; moves wkv [H, D, D] on: rows are channels of the values, columns of the keys.

        Returns the first layer's values.
        """
        multiply, add = np.multiply, np.add
        b = self._buffers
        gain, bias = layer.time_norm
        multiply(h, gain, h)
        add(h, bias, h)
        np.subtract(before, h, b.shift)
        multiply(b.shift, layer.mixes, b.mixed)
        add(b.mixed, h, b.mixed)
        before[...] = h
        self._project(layer, is_first=first_values is None)
        if first_values is None:
            first_values = b.first_values
            first_values[...] = b.v0
            b.v[...] = b.v0
        else:
            np.subtract(first_values, b.v0, b.v)
            multiply(b.v, b.share, b.v)
            add(b.v, b.v0, b.v)
        self._keys(layer)
        self._recur(wkv)
        self._read_out(layer)
        b.to_output(layer.output, self._update)
        add(x, self._update, x)
        return first_values

    def _project(self, layer: RWKV7Layer, *, is_first: bool) -> None:
        """The mixes through their matrices."""
        b, squash = self._buffers, self.weights.squash
        b.to_r(layer.receptance, b.r)
        b.to_k(layer.key, b.k0)
        b.to_v(layer.value, b.values_and_low)
        b.to_low_w(layer.w_down, b.low_w)
        b.to_low_a(layer.a_down, b.low_a)
        b.to_low_g(layer.g_down, b.low_g)
        np.tanh(b.low_w_g, b.low_w_g)
        b.to_z_w(layer.w_up, b.z_w)
        b.to_z_a(layer.a_up, b.z_a)
        b.to_gate(layer.g_up, b.gate)
        if not is_first:
            b.to_z_v(layer.v_up, b.z_v)
        np.tanh(b.z, b.z)
        np.multiply(b.z, squash, b.squashed)
        np.add(b.squashed, squash, b.squashed)

    def _keys(self, layer: RWKV7Layer) -> None:
        """k, kappa, -kappa a and the decay."""
        multiply, add, b = np.multiply, np.add, self._buffers
        multiply(b.z_a, layer.k_scale[0], b.k)
        add(b.k, layer.k_scale[1], b.k)
        multiply(b.k, b.k0, b.k)
        multiply(b.k0, layer.k_k, b.kappa)
        np.vecdot(b.kappa_heads, b.kappa_heads, b.head_square)
        np.sqrt(b.head_square, b.head_root)
        np.maximum(b.head_root, b.least, out=b.head_root)
        np.divide(b.kappa_heads, b.head_root_column, b.kappa_heads)
        multiply(b.kappa, b.minus_a, b.minus_b)
        np.exp(b.log_w, b.decay)

    def _recur(self, wkv: Array) -> None:
        """S = S diag(w) - (S kappa) (kappa a)^T + v k^T,  y = S r."""
        matmul, b = np.matmul, self._buffers
        matmul(wkv, b.kappa_column, b.read_column)
        np.multiply(wkv, b.decay_row, wkv)
        matmul(b.v_read, b.k_minus_b, b.outer)
        np.add(wkv, b.outer, wkv)
        matmul(wkv, b.r_column, b.y_column)

    def _read_out(self, layer: RWKV7Layer) -> None:
        """y = gate (head_norm(y) + (r r_k . k) v)."""
        multiply, add, vecdot, b = np.multiply, np.add, np.vecdot, self._buffers
        b.y_and_one.dot(self.weights.centre, b.y_centred)
        vecdot(b.y_centred, b.y_centred, b.head_square)
        np.sqrt(b.head_square, b.head_root)
        np.divide(b.y_centred_heads, b.head_root_column, b.y_heads)
        multiply(b.y, layer.head_norm[0], b.y)
        add(b.y, layer.head_norm[1], b.y)
        multiply(b.r, layer.r_k, b.r)
        vecdot(b.r_heads, b.k_heads, b.head_square)
        multiply(b.v_heads, b.head_square_column, b.v_heads)
        add(b.y, b.v, b.y)
        multiply(b.y, b.gate, b.y)


class _Buffers:
    """What a time mix writes, and views of it. Every name is an array of one token."""

    def __init__(self, w: RWKV7Weights) -> None:
        c, n, d = w.config.n_embd, w.config.n_head, w.config.head_size
        self.shift, self.low_mixed = np.zeros((2, c), np.float32)
        self.mixed = np.zeros((6, c), np.float32)
        (
            self.mixed_r,
            self.mixed_w,
            self.mixed_k,
            self.mixed_v,
            self.mixed_a,
            self.mixed_g,
        ) = self.mixed
        self.r, self.k0, self.kappa, self.y, self.gate = np.zeros((5, c), np.float32)
        self.decay, self.first_values = np.zeros((2, c), np.float32)
        self._low_rank(w, c)
        self.z, self.squashed = np.zeros((2, 3, c), np.float32)
        self.z_w, self.z_a, self.z_v = self.z
        self.log_w, self.minus_a, self.share = self.squashed
        pairs = np.zeros((4, c), np.float32)
        self.v, _, self.k, self.minus_b = pairs
        heads = pairs.reshape(2, 2, n, d)
        self.v_read = heads[0].transpose(1, 2, 0)  # [H, D, 2]
        self.k_minus_b = heads[1].swapaxes(0, 1)  # [H, 2, D]
        self.read_column = heads[0, 1][:, :, None]
        self.v_heads, self.k_heads = heads[0, 0], heads[1, 0]
        self.r_heads, self.kappa_heads = self.r.reshape(n, d), self.kappa.reshape(n, d)
        self.y_heads = self.y.reshape(n, d)
        self.kappa_column, self.r_column = self.kappa_heads[:, :, None], self.r_heads[:, :, None]
        self.decay_row = self.decay.reshape(n, 1, d)
        self.outer = np.zeros((n, d, d), np.float32)
        self.y_and_one = np.ones((n, d + 1), np.float32)
        self.y_column = self.y_and_one[:, :d, None]
        self.y_centred = np.zeros((n, d + 1), np.float32)
        self.y_centred_heads = self.y_centred[:, :d]
        self.head_square, self.head_root = np.zeros((2, n), np.float32)
        self.head_square_column = self.head_square[:, None]
        self.head_root_column = self.head_root[:, None]
        self._products(w.layers[0])
        self.least = np.full(n, LEAST_NORM, np.float32)

    def _low_rank(self, w: RWKV7Weights, c: int) -> None:
        """Inputs of the "up" matrices, each with its 1 beside it: tanh takes w and g at once."""
        ranks = w.ranks
        w_g = np.ones(1 + ranks["w"] + ranks["g"] + 1, np.float32)
        self.low_w_g = w_g[1:-1]
        self.low_w, self.low_g = np.split(self.low_w_g, [ranks["w"]])
        self.one_low_w, self.low_g_one = np.split(w_g, [1 + ranks["w"]])
        self.low_a_one = np.ones(ranks["a"] + 1, np.float32)
        self.low_a = self.low_a_one[:-1]
        values = np.ones(c + ranks["v"] + 1, np.float32)
        self.values_and_low = values[:-1]
        self.v0, self.low_v_one = np.split(values, [c])

    def _products(self, layer: RWKV7Layer) -> None:
        """What multiplies each input by its matrix, in every layer as in this one."""
        self.to_r = multiplier(self.mixed_r, layer.receptance)
        self.to_k = multiplier(self.mixed_k, layer.key)
        self.to_v = multiplier(self.mixed_v, layer.value)
        self.to_low_w = multiplier(self.mixed_w, layer.w_down)
        self.to_low_a = multiplier(self.mixed_a, layer.a_down)
        self.to_low_g = multiplier(self.mixed_g, layer.g_down)
        self.to_z_w = multiplier(self.one_low_w, layer.w_up)
        self.to_z_a = multiplier(self.low_a_one, layer.a_up)
        self.to_z_v = multiplier(self.low_v_one, layer.v_up)
        self.to_gate = multiplier(self.low_g_one, layer.g_up)
        self.to_output = multiplier(self.y, layer.output)
