"""An RWKV-7 one token at a time: its state never grows, so that no token costs more than another.

Forward only, vectors not batches. The arithmetic is that of phi_model.rwkv7, whose whole
sequences give the same logits.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.rwkv7_weights import RWKV7Weights
from phi_model import ModelConfig, RWKV7State
from phi_model.rwkv7.parameters import MIXES
from phi_model.rwkv7.time_mix import HEAD_NORM_EPS, LEAST_LOG_DECAY, LEAST_NORM

__all__ = ["RWKV7Step"]

Array = NDArray[Any]

R, W, K, V, A, G = range(len(MIXES))


class RWKV7Step:
    """The state of one text: feed it a token, it returns the logits of the next."""

    def __init__(self, config: ModelConfig, parameters: Mapping[str, Array] | RWKV7Weights) -> None:
        self.config = config
        p = parameters.parameters if isinstance(parameters, RWKV7Weights) else parameters
        self.weights = RWKV7Weights(config, p)
        self._embedding = p["embedding"]
        self._head = p["embedding" if config.tied_head else "head"]
        self._first_norm = p["embedding_norm.gain"], p["embedding_norm.bias"]
        self._final_norm = p["final_norm.gain"], p["final_norm.bias"]
        self._layers = [_LayerWeights(p, i) for i in range(config.n_layer)]
        self.state = RWKV7State.zeros(config)

    @property
    def position(self) -> int:
        """Tokens read so far; nothing depends on it."""
        return self.state.position

    def prefill(self, ids: Sequence[int] | Array) -> Array:
        """Reads ids, one or more; the logits [V] after the last."""
        for token in ids:
            logits = self(int(token))
        return logits

    def copy(self) -> RWKV7Step:
        """A step that goes on from here by itself; the weights are shared."""
        other = RWKV7Step(self.config, self.weights)
        other.state = self.state.copy()
        return other

    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Writes what is remembered of the text to a small file."""
        self.state.save(path)

    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Goes on from a saved state. Raises CheckpointError or ConfigError."""
        state = RWKV7State.load(path)
        state.check(self.config, 1)
        self.state = state

    def __call__(self, token: int) -> Array:
        """Logits [V] after `token`; takes its place at the end of the text."""
        state = self.state
        x = self._norm(self._embedding[token], self._first_norm)
        first_values: Array | None = None
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
        logits: Array = self._head @ self._norm(x, self._final_norm)
        return logits

    def _time_mix(
        self, mixed: Array, layer: _LayerWeights, wkv: Array, first_values: Array | None
    ) -> tuple[Array, Array]:
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

    def _norm(self, x: Array, gain_bias: tuple[Array, Array]) -> Array:
        y = _normalise(x, self.config.norm_eps)
        y *= gain_bias[0]
        y += gain_bias[1]
        return y


class _LayerWeights:
    def __init__(self, p: Mapping[str, Array], i: int) -> None:
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


def _sigmoid(x: Array) -> Array:
    """By tanh, which cannot overflow."""
    x *= np.float32(0.5)
    np.tanh(x, out=x)
    x *= np.float32(0.5)
    x += np.float32(0.5)
    return x


def _normalise(x: Array, eps: float) -> Array:
    """x [..., C] less its mean, over its standard deviation."""
    centred = x - np.add.reduce(x, axis=-1, keepdims=True) / np.float32(x.shape[-1])
    variance = np.vecdot(centred, centred) / np.float32(x.shape[-1])
    centred /= np.sqrt(variance + np.float32(eps))[..., None]
    return centred
