"""The operations of phi_model.reference, each with its backward right below.

y, kept = op(x, ...) and dx = op_backward(dy, kept); `kept` is what the chain rule needs again.
Arrays are token-major, [B, T, C] or [B, H, T, D]. docs/gradients.md derives every backward line.

>>> import numpy as np
>>> y, kept = swiglu(np.array([0.0, 1.0, 3.0, 5.0]))  # gates 0 and 1, ups 3 and 5
>>> y.round(3).tolist(), swiglu_backward(np.ones(2), kept).round(3).tolist()
([0.0, 3.655], [1.5, 4.638, 0.0, 0.731])
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_model.rope import rope_angles

__all__ = [
    "attend",
    "attend_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "embed",
    "embed_backward",
    "linear",
    "linear_backward",
    "rmsnorm",
    "rmsnorm_backward",
    "rope",
    "rope_backward",
    "share_heads",
    "share_heads_backward",
    "swiglu",
    "swiglu_backward",
]

Array = NDArray[Any]
Kept = Any


def linear(x: Array, weight: Array) -> tuple[Array, Kept]:
    """y = x weight^T;  x [..., in], weight [out, in], y [..., out]."""
    return x @ weight.T, (x, weight)


def linear_backward(dy: Array, kept: Kept) -> tuple[Array, Array]:
    x, weight = kept
    dweight = dy.reshape(-1, dy.shape[-1]).T @ x.reshape(-1, x.shape[-1])
    return dy @ weight, dweight


def rmsnorm(x: Array, gain: Array, eps: float) -> tuple[Array, Kept]:
    """y = gain * x * rrms;  x [..., C], gain [C]."""
    rrms = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    return gain * x * rrms, (x, gain, rrms)


def rmsnorm_backward(dy: Array, kept: Kept) -> tuple[Array, Array]:
    x, gain, rrms = kept
    dgain = (dy * x * rrms).reshape(-1, x.shape[-1]).sum(axis=0)
    dnormed = dy * gain
    projection = (dnormed * x).mean(axis=-1, keepdims=True)
    return rrms * dnormed - x * rrms**3 * projection, dgain


def rope(x: Array, base: float, scaling: float = 1.0) -> tuple[Array, Kept]:
    """Turns each head's halves as planes;  x [B, H, T, D]."""
    angles = rope_angles(x.shape[2], x.shape[3], base, scaling).T
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    return _turn(x, cos, sin), (cos, sin)


def rope_backward(dy: Array, kept: Kept) -> Array:
    cos, sin = kept
    return _turn(dy, cos, -sin)


def _turn(x: Array, cos: Array, sin: Array) -> Array:
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def share_heads(x: Array, n_group: int) -> tuple[Array, Kept]:
    """Each head n_group times in a row, for the queries that share it;  x [B, K, T, D]."""
    return np.repeat(x, n_group, axis=1), n_group


def share_heads_backward(dy: Array, kept: Kept) -> Array:
    b, h, t, d = dy.shape
    dx: Array = dy.reshape(b, h // kept, kept, t, d).sum(axis=2)
    return dx


def attend(q: Array, k: Array, v: Array, bias: Array | float = 0.0) -> tuple[Array, Kept]:
    """Causal softmax attention;  q, k, v and y [B, H, T, D], bias [H, T, T] has no gradient."""
    n, d = q.shape[-2:]
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(d).astype(q.dtype) + bias
    scores = np.where(np.tril(np.ones((n, n), bool)), scores, -np.inf)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    return p @ v, (q, k, v, p)


def attend_backward(dy: Array, kept: Kept) -> tuple[Array, Array, Array]:
    q, k, v, p = kept
    dv = p.swapaxes(-1, -2) @ dy
    dp = dy @ v.swapaxes(-1, -2)
    dscores = p * (dp - (dp * p).sum(axis=-1, keepdims=True))
    dscores /= np.sqrt(q.shape[-1]).astype(q.dtype)
    return dscores @ k, dscores.swapaxes(-1, -2) @ q, dv


def swiglu(gate_up: Array) -> tuple[Array, Kept]:
    """y = silu(gate) * up;  gate_up [..., 2F], y [..., F]."""
    gate, up = np.split(gate_up, 2, axis=-1)
    s = (1 + np.tanh(gate / 2)) / 2  # sigmoid, without an exp that could overflow
    return gate * s * up, (gate, up, s)


def swiglu_backward(dy: Array, kept: Kept) -> Array:
    gate, up, s = kept
    dup = dy * gate * s
    dgate = dy * up * (s + gate * s * (1 - s))
    return np.concatenate([dgate, dup], axis=-1)


def embed(ids: Array, weight: Array) -> tuple[Array, Kept]:
    """y[b, t] = weight[ids[b, t]];  weight [V, C], y [B, T, C]."""
    return weight[ids], (ids, weight)


def embed_backward(dy: Array, kept: Kept) -> Array:
    ids, weight = kept
    dweight: Array = np.zeros_like(weight)
    np.add.at(dweight, ids, dy)
    return dweight


def cross_entropy(logits: Array, targets: Array) -> tuple[Array, Kept]:
    """Losses in nats [B, T];  logits [B, T, V], targets [B, T]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return -np.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0], (log_p, targets)


def cross_entropy_backward(dlosses: Array, kept: Kept) -> Array:
    log_p, targets = kept
    onehot = np.zeros_like(log_p)
    np.put_along_axis(onehot, targets[..., None], 1, axis=-1)
    dlogits: Array = (np.exp(log_p) - onehot) * dlosses[..., None]
    return dlogits
