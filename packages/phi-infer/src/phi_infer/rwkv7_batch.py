"""Many texts of an RWKV-7, one token of each in one pass: matrices are read once for all texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.rwkv7_prefill import prefill
from phi_infer.rwkv7_weights import RWKV7Layer, RWKV7Weights
from phi_model import RWKV7State
from phi_model.rwkv7.parameters import MIXES
from phi_model.rwkv7.state import state_shapes
from phi_model.rwkv7.time_mix import LEAST_NORM

__all__ = ["RWKV7Batch"]

Array = NDArray[Any]

R, W, K, V, A, G = range(len(MIXES))


class RWKV7Batch:
    """States of up to `slots` texts."""

    def __init__(self, weights: RWKV7Weights, slots: int) -> None:
        self.weights = weights
        shapes = state_shapes(weights.config, slots).values()
        self._states = [np.zeros((shape[1], slots, *shape[2:]), np.float32) for shape in shapes]
        self._positions = np.zeros(slots, np.int64)

    def positions(self, slots: Sequence[int] | Array) -> Array:
        """Tokens read so far by the texts in `slots`."""
        positions: Array = self._positions[slots]
        return positions

    def clear(self, slot: int) -> None:
        """The start of a text."""
        for state in self._states:
            state[:, slot] = 0
        self._positions[slot] = 0

    def prefill(self, slot: int, ids: Sequence[int] | Array) -> Array:
        """Reads ids into one slot; the logits [V] after the last."""
        time_shift, channel_shift, wkv = (array[None, :, slot] for array in self._states)
        state = RWKV7State(time_shift, channel_shift, wkv)  # of views
        prefill(self.weights, state, ids[:-1])
        self._positions[slot] += len(ids) - 1
        logits: Array = self.step(np.array([slot]), np.array(ids[-1:]))[0]
        return logits

    def step(self, slots: Array, tokens: Array) -> Array:
        """Logits [n, V] after one token for each of n different slots."""
        first = int(slots[0])
        in_a_row = np.array_equal(slots, np.arange(first, first + len(slots)))
        chosen = slice(first, first + len(slots)) if in_a_row else slots  # a view, or copies
        w, first_values = self.weights, None
        x = w.embed(tokens)
        for layer, *states in zip(w.layers, *self._states, strict=True):
            time_shift, channel_shift, wkv = (state[chosen] for state in states)
            added, first_values = self._time_mix(
                layer, self._normalise(x), time_shift, wkv, first_values
            )
            x += added
            x += self._channel_mix(layer, self._normalise(x), channel_shift)
            if not in_a_row:
                for state, new in zip(states, (time_shift, channel_shift, wkv), strict=True):
                    state[slots] = new
        self._positions[slots] += 1
        logits: Array = self._normalise(x) @ w.head[:-1]
        logits += w.head[-1]
        return logits

    def _normalise(self, x: Array) -> Array:
        """x [n, C], which has no mean, over its size."""
        size = np.vecdot(x, x)
        size += self.weights.eps * self.weights.eps
        h: Array = x / np.sqrt(size, size)[:, None]
        return h

    def _channel_mix(self, layer: RWKV7Layer, h: Array, before: Array) -> Array:
        h *= layer.channel_norm[0]
        h += layer.channel_norm[1]
        mixed = before - h
        mixed *= layer.mix_k
        mixed += h
        before[...] = h
        root = mixed @ layer.channel_key
        hidden = np.abs(root)
        hidden += root
        hidden *= root
        added: Array = hidden @ layer.channel_value
        return added

    def _time_mix(
        self, layer: RWKV7Layer, h: Array, before: Array, wkv: Array, first_values: Array | None
    ) -> tuple[Array, Array]:
        """What goes into the residual stream [n, C], and the first layer's values; moves `before`
        and wkv [n, H, D, D] on.
        """
        h *= layer.time_norm[0]
        h += layer.time_norm[1]
        mixed = (before - h) * layer.mixes[:, None]
        mixed += h
        before[...] = h
        r, k0 = mixed[R] @ layer.receptance, mixed[K] @ layer.key
        v, low_v = np.split(mixed[V] @ layer.value, [h.shape[1]], axis=1)
        log_w, minus_a, share = self.weights.squash[:, 0]  # a factor, and an addend like it
        low_w = mixed[W] @ layer.w_down
        decay = _squash(np.tanh(low_w, low_w) @ layer.w_up[1:], layer.w_up[0], log_w)
        np.exp(decay, decay)
        z_a = mixed[A] @ layer.a_down @ layer.a_up[:-1]
        a = _squash(z_a, layer.a_up[-1], minus_a)  # leaves z_a as its tanh
        low_g = mixed[G] @ layer.g_down
        gate = np.tanh(low_g, low_g) @ layer.g_up[:-1]
        gate += layer.g_up[-1]
        if first_values is None:
            first_values = v
        else:
            share = _squash(low_v @ layer.v_up[:-1], layer.v_up[-1], share)
            v = v + (first_values - v) * share
        k = z_a * layer.k_scale[0]
        k += layer.k_scale[1]
        k *= k0
        y = self._recur(wkv, r, k, v, decay, k0 * layer.k_k, a)
        y *= layer.head_norm[0]
        y += layer.head_norm[1]
        heads = wkv.shape[:3]
        bonus = np.vecdot((r * layer.r_k).reshape(heads), k.reshape(heads))[..., None]
        y += (bonus * v.reshape(heads)).reshape(y.shape)
        y *= gate
        return y @ layer.output, first_values

    def _recur(
        self, wkv: Array, r: Array, k: Array, v: Array, decay: Array, kappa: Array, minus_a: Array
    ) -> Array:
        """S = S diag(w) - (S kappa) (kappa a)^T + v k^T,  y = S r, each head normalised; [n, C]."""
        heads = wkv.shape[:3]
        kappa = kappa.reshape(heads)
        kappa /= np.maximum(np.sqrt(np.vecdot(kappa, kappa)), np.float32(LEAST_NORM))[..., None]
        read = (wkv @ kappa[..., None])[..., 0]
        wkv *= decay.reshape(*heads[:2], 1, -1)
        left = np.stack([v.reshape(heads), read], axis=-1)
        right = np.stack([k.reshape(heads), kappa * minus_a.reshape(heads)], axis=-2)
        wkv += left @ right
        y_and_one = np.ones((*heads[:2], heads[2] + 1), np.float32)
        y_and_one[..., :-1] = (wkv @ r.reshape(heads)[..., None])[..., 0]
        y = y_and_one @ self.weights.centre
        y /= np.sqrt(np.vecdot(y, y))[..., None]
        normed: Array = y[..., :-1].reshape(r.shape)
        return normed


def _squash(z: Array, bias: Array, scale: Array) -> Array:
    """scale (1 + tanh(z + bias)); z becomes the tanh."""
    z += bias
    np.tanh(z, z)
    squashed: Array = z * scale
    squashed += scale
    return squashed
