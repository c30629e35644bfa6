"""A GPT one token at a time, with a cache of keys and values. Forward only, vectors not batches.

The cache is a ring of seq_len places: beyond the trained context the oldest token is forgotten,
and since RoPE only sees distances, positions may grow without end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_model import ModelConfig
from phi_model.rope import rope_angles

__all__ = ["GPTStep"]

Array = NDArray[Any]


class GPTStep:
    """The state of one text: feed it a token, it returns the logits of the next."""

    def __init__(self, config: ModelConfig, parameters: Mapping[str, Array]) -> None:
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

    def __call__(self, token: int) -> Array:
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
        logits: Array = self._head @ self._norm(x, self._final_gain)
        return logits

    def _norm(self, x: Array, gain: Array) -> Array:
        return gain * x * np.float32((float(x @ x) / x.size + self.config.norm_eps) ** -0.5)

    def _norm_heads(self, x: Array, gain: Array) -> Array:
        """Each head of x [H, D] by itself."""
        mean_square = (x * x).mean(axis=1, keepdims=True)
        normed: Array = gain * x / np.sqrt(mean_square + np.float32(self.config.norm_eps))
        return normed


class _LayerWeights:
    def __init__(self, p: Mapping[str, Array], i: int) -> None:
        self.attention_gain = p[f"layers.{i}.attention_norm.gain"]
        self.qkv = p[f"layers.{i}.attention.qkv"]  # rows: heads of queries, of keys, of values
        if f"layers.{i}.attention.q_norm.gain" in p:
            self.q_gain = p[f"layers.{i}.attention.q_norm.gain"]
            self.k_gain = p[f"layers.{i}.attention.k_norm.gain"]
        self.attention_out = p[f"layers.{i}.attention.out"]
        self.mlp_gain = p[f"layers.{i}.mlp_norm.gain"]
        self.gate_up = p[f"layers.{i}.mlp.gate_up"]
        self.down = p[f"layers.{i}.mlp.down"]


def _turn(x: Array, cos: Array, sin: Array) -> Array:
    """RoPE on [H, D], halves as planes."""
    half = x.shape[1] // 2
    first, second = x[:, :half], x[:, half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1)


def _attend(q: Array, keys: Array, values: Array) -> Array:
    """Attention of one position's queries [H, D] over keys and values [K, n, D]; returns [C].

    H / K heads of queries in a row share a head of keys. The order of the places in the ring does
    not matter: a sum has no order.
    """
    q = q.reshape(len(keys), -1, q.shape[1])
    scores = np.matmul(keys, q.swapaxes(1, 2)) * np.float32(q.shape[2] ** -0.5)
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    attended: Array = np.matmul(p.swapaxes(1, 2), values).ravel()
    return attended
