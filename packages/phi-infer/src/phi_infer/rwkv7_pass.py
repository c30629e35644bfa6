"""An RWKV-7's layers over n tokens at once, of one text or of many: products of matrices.

What differs is handed in: `before`, what each token's mixes see of the token before it, and
`recur`, which moves states on and reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.matrices import product
from phi_infer.rwkv7_weights import RWKV7Layer, RWKV7Weights
from phi_model.rwkv7.parameters import MIXES
from phi_model.rwkv7.reference import LEAST_NORM

__all__ = ["Recur", "add_channel_mix", "add_time_mix", "logits", "norm"]

Array = NDArray[Any]
# r, log w, k, v, kappa, -kappa a, each [n, C] -> y = S r [n, C], a new array
Recur = Callable[[Array, Array, Array, Array, Array, Array], Array]

R, W, K, V, A, G = range(len(MIXES))


def norm(w: RWKV7Weights, x: Array, gain_bias: tuple[Array, Array]) -> Array:
    """LayerNorm of x [n, C], which has no mean."""
    h = _normalise(w, x)
    h *= gain_bias[0]
    h += gain_bias[1]
    return h


def _normalise(w: RWKV7Weights, x: Array) -> Array:
    size = np.vecdot(x, x)
    size += w.eps * w.eps
    h: Array = x / np.sqrt(size, size)[:, None]
    return h


def logits(w: RWKV7Weights, x: Array) -> Array:
    """[n, V] of x [n, C]."""
    found = product(_normalise(w, x), w.head[:-1])
    found += w.head[-1]
    return found


def add_channel_mix(layer: RWKV7Layer, x: Array, h: Array, before: Array) -> None:
    """value relu(key (h + (before - h) mix_k))^2 into x [n, C]."""
    mixed = before - h
    mixed *= layer.mix_k
    mixed += h
    root = product(mixed, layer.channel_key)
    np.maximum(root, 0, out=root)
    root *= root
    x += product(root, layer.channel_value)


def add_time_mix(
    w: RWKV7Weights,
    layer: RWKV7Layer,
    x: Array,
    h: Array,
    before: Array,
    first_values: Array | None,
    recur: Recur,
) -> Array:
    """output (gate (head_norm(y) + bonus)) into x [n, C]; returns the first layer's values."""
    mixed = (before - h) * layer.mixes[:, None]
    mixed += h
    r, k0 = product(mixed[R], layer.receptance), product(mixed[K], layer.key)
    v, low_v = np.split(product(mixed[V], layer.value), [h.shape[1]], axis=1)
    of_w, of_a, of_share = w.squash[:, 0]
    low_w = mixed[W] @ layer.w_down
    log_w = _squash(np.tanh(low_w, low_w) @ layer.w_up[1:], layer.w_up[0], of_w)
    tanh_a = mixed[A] @ layer.a_down @ layer.a_up[:-1]
    minus_a = _squash(tanh_a, layer.a_up[-1], of_a)
    if first_values is None:
        first_values = v
    else:
        share = _squash(low_v @ layer.v_up[:-1], layer.v_up[-1], of_share)
        v = v + (first_values - v) * share
    k = tanh_a * layer.k_scale[0]
    k += layer.k_scale[1]
    k *= k0
    kappa = _unit_heads(w, k0 * layer.k_k)
    minus_a *= kappa
    y = _normalise_heads(w, recur(r, log_w, k, v, kappa, minus_a))
    y *= layer.head_norm[0]
    y += layer.head_norm[1]
    bonus = np.vecdot(_heads(w, r * layer.r_k), _heads(w, k))[..., None]
    y += (bonus * _heads(w, v)).reshape(y.shape)
    low_g = mixed[G] @ layer.g_down
    gate = np.tanh(low_g, low_g) @ layer.g_up[:-1]
    gate += layer.g_up[-1]
    y *= gate
    x += product(y, layer.output)
    return first_values


def _squash(z: Array, bias: Array, scale: Array) -> Array:
    """scale (1 + tanh(z + bias)); z becomes the tanh."""
    z += bias
    np.tanh(z, z)
    squashed: Array = z * scale
    squashed += scale
    return squashed


def _heads(w: RWKV7Weights, x: Array) -> Array:
    """[n, C] seen as [n, H, D]."""
    return x.reshape(len(x), w.config.n_head, -1)


def _unit_heads(w: RWKV7Weights, x: Array) -> Array:
    """Each head of x [n, C] at length 1, in place."""
    heads = _heads(w, x)
    heads /= np.maximum(np.sqrt(np.vecdot(heads, heads)), np.float32(LEAST_NORM))[..., None]
    return x


def _normalise_heads(w: RWKV7Weights, y: Array) -> Array:
    """Each head of y [n, C] less its mean, over its size."""
    heads, d = _heads(w, y), w.config.head_size
    centred = heads @ w.centre[:d, :d]
    size = np.vecdot(centred, centred)
    size += w.centre[d, d] * w.centre[d, d]
    centred /= np.sqrt(size, size)[..., None]
    return centred.reshape(y.shape)
