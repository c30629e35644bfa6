"""The same GPT, as plainly as it can be written: for people to learn from and tests to trust.

Arrays are token-major, [B, T, C]. Every operation is a function y, kept = op(x, ...) with its
op_backward(dy, kept) right below; `kept` is what the chain rule needs again. No workspace, no
fused step, no trick; slower and hungrier than phi_model.gpt, and equal to it up to rounding.
docs/gradients.md derives every backward line.

>>> from phi_model import GPT, ModelConfig
>>> model = GPT(ModelConfig.preset("gpt-1k"))
>>> reference = ReferenceGPT(model.config, model.parameters)
>>> loss, gradients = reference.loss_and_grad([[1, 2]], [[2, 3]])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phi_model.config import ModelConfig
from phi_model.rope import rope_angles

__all__ = ["ReferenceGPT"]

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


def attend(q: Array, k: Array, v: Array) -> tuple[Array, Kept]:
    """Causal softmax attention;  q, k, v and y [B, H, T, D]."""
    n, d = q.shape[-2:]
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(d).astype(q.dtype)
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


class ReferenceGPT:
    """A GPT over a table of parameters; computes in their dtype.

    Raises KeyError when a parameter that `config` needs is missing.
    """

    def __init__(self, config: ModelConfig, parameters: Mapping[str, Array]) -> None:
        self.config = config
        self.parameters = parameters

    def logits(self, ids: ArrayLike) -> Array:
        """Logits [B, T, V] for ids [B, T]."""
        logits, _ = self.forward(np.atleast_2d(np.asarray(ids)))
        return logits

    def loss_and_grad(
        self, ids: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None
    ) -> tuple[float, dict[str, Array]]:
        """The loss and its gradient by name; weights as in GPT.loss_and_grad."""
        ids, targets = np.atleast_2d(np.asarray(ids)), np.atleast_2d(np.asarray(targets))
        logits, kept = self.forward(ids)
        factors = np.ones(ids.shape) if weights is None else np.asarray(weights, float)
        factors = (factors / max(1, int(np.count_nonzero(factors)))).astype(logits.dtype)
        losses, kept_loss = cross_entropy(logits, targets)
        gradients = self.backward(cross_entropy_backward(factors, kept_loss), kept)
        return float((losses * factors).sum()), gradients

    @property
    def head_name(self) -> str:
        """The parameter that makes the logits."""
        return "embedding" if self.config.tied_head else "head"

    def forward(self, ids: Array) -> tuple[Array, Kept]:
        """Logits [B, T, V] and everything that backward needs."""
        p = self.parameters
        x, kept_embed = embed(ids, p["embedding"])
        kept_layers = []
        for i in range(self.config.n_layer):
            x, kept_attention = self.attention_sublayer(x, i)
            x, kept_mlp = self.mlp_sublayer(x, i)
            kept_layers.append((kept_attention, kept_mlp))
        h, kept_norm = rmsnorm(x, p["final_norm.gain"], self.config.norm_eps)
        logits, kept_head = linear(h, p[self.head_name])
        return logits, (kept_embed, kept_layers, kept_norm, kept_head)

    def backward(self, dlogits: Array, kept: Kept) -> dict[str, Array]:
        """Gradients by name, newly made: nothing of an earlier step can be in them."""
        kept_embed, kept_layers, kept_norm, kept_head = kept
        g: dict[str, Array] = {}
        dh, dhead = linear_backward(dlogits, kept_head)
        dx, g["final_norm.gain"] = rmsnorm_backward(dh, kept_norm)
        for i in reversed(range(self.config.n_layer)):
            kept_attention, kept_mlp = kept_layers[i]
            dx = self.mlp_sublayer_backward(dx, kept_mlp, i, g)
            dx = self.attention_sublayer_backward(dx, kept_attention, i, g)
        dembedding = embed_backward(dx, kept_embed)
        if self.config.tied_head:
            g["embedding"] = dembedding + dhead
        else:
            g["embedding"], g["head"] = dembedding, dhead
        return g

    def attention_sublayer(self, x: Array, i: int) -> tuple[Array, Kept]:
        """x + out attend(rope(qkv norm(x)))."""
        p, c = self.parameters, self.config
        h, kept_norm = rmsnorm(x, p[f"layers.{i}.attention_norm.gain"], c.norm_eps)
        qkv, kept_qkv = linear(h, p[f"layers.{i}.attention.qkv"])
        parts = np.split(qkv, [c.n_embd, c.n_embd + c.n_kv_embd], axis=-1)
        q, k, v = (self._split_heads(part) for part in parts)
        q, kept_q = self.place(q, f"layers.{i}.attention.q_norm.gain")
        k, kept_k = self.place(k, f"layers.{i}.attention.k_norm.gain")
        k, v = (share_heads(part, c.n_group)[0] for part in (k, v))
        attended, kept_attend = attend(q, k, v)
        y, kept_out = linear(self._join_heads(attended), p[f"layers.{i}.attention.out"])
        return x + y, (kept_norm, kept_qkv, kept_q, kept_k, kept_attend, kept_out)

    def attention_sublayer_backward(
        self, dy: Array, kept: Kept, i: int, g: dict[str, Array]
    ) -> Array:
        """The gradient of the sublayer's input; adds the parameters' gradients to g."""
        kept_norm, kept_qkv, kept_q, kept_k, kept_attend, kept_out = kept
        dattended, g[f"layers.{i}.attention.out"] = linear_backward(dy, kept_out)
        dq, dk, dv = attend_backward(self._split_heads(dattended), kept_attend)
        dk, dv = (share_heads_backward(part, self.config.n_group) for part in (dk, dv))
        dq = self.place_backward(dq, kept_q, f"layers.{i}.attention.q_norm.gain", g)
        dk = self.place_backward(dk, kept_k, f"layers.{i}.attention.k_norm.gain", g)
        dqkv = np.concatenate([self._join_heads(part) for part in (dq, dk, dv)], axis=-1)
        dh, g[f"layers.{i}.attention.qkv"] = linear_backward(dqkv, kept_qkv)
        dx, g[f"layers.{i}.attention_norm.gain"] = rmsnorm_backward(dh, kept_norm)
        return dy + dx

    def place(self, x: Array, gain: str) -> tuple[Array, Kept]:
        """Queries or keys [B, H, T, D] as attention compares them: turned, normalised before."""
        c, kept_norm = self.config, None
        if c.qk_norm:
            x, kept_norm = rmsnorm(x, self.parameters[gain], c.norm_eps)
        y, kept_rope = rope(x, c.rope_base, c.rope_scaling)
        return y, (kept_norm, kept_rope)

    def place_backward(self, dy: Array, kept: Kept, gain: str, g: dict[str, Array]) -> Array:
        """The gradient of what was placed; adds the gain's to g."""
        kept_norm, kept_rope = kept
        dx = rope_backward(dy, kept_rope)
        if self.config.qk_norm:
            dx, g[gain] = rmsnorm_backward(dx, kept_norm)
        return dx

    def mlp_sublayer(self, x: Array, i: int) -> tuple[Array, Kept]:
        """x + down swiglu(gate_up norm(x))."""
        p = self.parameters
        h, kept_norm = rmsnorm(x, p[f"layers.{i}.mlp_norm.gain"], self.config.norm_eps)
        gate_up, kept_gate_up = linear(h, p[f"layers.{i}.mlp.gate_up"])
        hidden, kept_swiglu = swiglu(gate_up)
        y, kept_down = linear(hidden, p[f"layers.{i}.mlp.down"])
        return x + y, (kept_norm, kept_gate_up, kept_swiglu, kept_down)

    def mlp_sublayer_backward(self, dy: Array, kept: Kept, i: int, g: dict[str, Array]) -> Array:
        """The gradient of the sublayer's input; adds the parameters' gradients to g."""
        kept_norm, kept_gate_up, kept_swiglu, kept_down = kept
        dhidden, g[f"layers.{i}.mlp.down"] = linear_backward(dy, kept_down)
        dgate_up = swiglu_backward(dhidden, kept_swiglu)
        dh, g[f"layers.{i}.mlp.gate_up"] = linear_backward(dgate_up, kept_gate_up)
        dx, g[f"layers.{i}.mlp_norm.gain"] = rmsnorm_backward(dh, kept_norm)
        return dy + dx

    def _split_heads(self, x: Array) -> Array:
        """[B, T, H * D] -> [B, H, T, D]."""
        b, t, _ = x.shape
        return x.reshape(b, t, -1, self.config.head_size).swapaxes(1, 2)

    @staticmethod
    def _join_heads(x: Array) -> Array:
        """[B, H, T, D] -> [B, T, H * D]."""
        b, h, t, d = x.shape
        return x.swapaxes(1, 2).reshape(b, t, h * d)
