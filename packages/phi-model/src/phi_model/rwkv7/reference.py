"""The same RWKV-7, as plainly as it can be written: for people to learn from and tests to trust.

Whole arrays [B, T, C], nothing preallocated, the recurrence token by token. Every function
returns its result and what its backward needs; docs/rwkv7.md derives each.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_model.config import ModelConfig
from phi_model.reference_ops import (
    cross_entropy,
    cross_entropy_backward,
    embed,
    embed_backward,
    linear,
    linear_backward,
)
from phi_model.rwkv7.parameters import MIXES
from phi_model.rwkv7.state import RWKV7State
from phi_model.rwkv7.wkv_loop import wkv_loop, wkv_loop_backward

__all__ = ["ReferenceRWKV7"]

Array = NDArray[Any]
Kept = Any
Gradients = dict[str, Array]

LEAST_LOG_DECAY = -float(np.exp(-0.5))
HEAD_NORM_EPS = 64e-5
LEAST_NORM = 1e-12


class ReferenceRWKV7:
    """Computes with `parameters` (name -> array), whose dtype is the dtype of everything."""

    def __init__(self, config: ModelConfig, parameters: Mapping[str, Array]) -> None:
        self.config, self.parameters = config, parameters

    def logits(self, ids: Array, state: RWKV7State | None = None) -> Array:
        """Logits [B, T, V]; a state is where it starts, and is left at where it ends."""
        return self._forward(ids, state, None)[0]

    def loss_and_grad(
        self,
        ids: Array,
        targets: Array,
        factors: Array,
        *,
        state: RWKV7State | None = None,
        reset: Array | None = None,
    ) -> tuple[float, Gradients]:
        """sum(factors * losses) and its gradients. reset [B, T]: the token starts a document."""
        logits, kept = self._forward(ids, state, reset)
        losses, kept_losses = cross_entropy(logits, targets)
        g: Gradients = {}
        self._backward(cross_entropy_backward(factors, kept_losses), kept, g)
        return float((losses * factors).sum()), g

    def _forward(
        self, ids: Array, state: RWKV7State | None, reset: Array | None
    ) -> tuple[Array, Kept]:
        p, c = self.parameters, self.config
        if state is None:
            state = RWKV7State.zeros(c, batch=len(ids), dtype=p["embedding"].dtype)
        reset = np.zeros(ids.shape, bool) if reset is None else reset
        x, kept_embed = embed(ids, p["embedding"])
        x, kept_first = self._norm(x, "embedding_norm")
        first_values, layers = None, []
        for i in range(c.n_layer):
            h, kept_norm = self._norm(x, f"layers.{i}.time_norm")
            y, first_values, kept_mix = self._time_mix(h, i, first_values, state, reset)
            x = x + y
            h, kept_norm2 = self._norm(x, f"layers.{i}.channel_norm")
            y, kept_channel = self._channel_mix(h, i, state, reset)
            x = x + y
            layers.append((kept_norm, kept_mix, kept_norm2, kept_channel))
        state.position += ids.shape[1]
        h, kept_final = self._norm(x, "final_norm")
        logits, kept_head = linear(h, p[c.head_name])
        return logits, (kept_embed, kept_first, layers, kept_final, kept_head)

    def _backward(self, dlogits: Array, kept: Kept, g: Gradients) -> None:
        kept_embed, kept_first, layers, kept_final, kept_head = kept
        dh, dhead = linear_backward(dlogits, kept_head)
        dx = self._norm_backward(dh, kept_final, "final_norm", g)
        dfirst_values = np.zeros_like(dx)
        for i in reversed(range(self.config.n_layer)):
            kept_norm, kept_mix, kept_norm2, kept_channel = layers[i]
            dh = self._channel_mix_backward(dx, kept_channel, i, g)
            dx = dx + self._norm_backward(dh, kept_norm2, f"layers.{i}.channel_norm", g)
            dh = self._time_mix_backward(dx, dfirst_values, kept_mix, i, g)
            dx = dx + self._norm_backward(dh, kept_norm, f"layers.{i}.time_norm", g)
        dx = self._norm_backward(dx, kept_first, "embedding_norm", g)
        g["embedding"] = embed_backward(dx, kept_embed)
        head = self.config.head_name
        g[head] = g.get(head, 0) + dhead

    def _time_mix(
        self, x: Array, i: int, first_values: Array | None, state: RWKV7State, reset: Array
    ) -> tuple[Array, Array, Kept]:
        """Its output, the first layer's values, and what the backward needs."""
        p = _Layer(self.parameters, f"layers.{i}.time_mix.")
        d, kept_shift = _shift(x, state.time_shift, i, reset)
        mixed = {name: x + d * p[f"mix_{name}"] for name in MIXES}
        r, kept_r = linear(mixed["r"], p["receptance"])
        k0, kept_k = linear(mixed["k"], p["key"])
        v0, kept_v = linear(mixed["v"], p["value"])
        z_w, kept_w = _lora(mixed["w"], p, "w", np.tanh)
        decay = _sigmoid(z_w + p["w_bias"])
        z_a, kept_a = _lora(mixed["a"], p, "a", None)
        a = _sigmoid(z_a + p["a_bias"])
        gate, kept_g = _lora(mixed["g"], p, "g", _sigmoid)
        if first_values is None:
            first_values, v, share, kept_share = v0, v0, None, None
        else:
            z_v, kept_share = _lora(mixed["v"], p, "v", None)
            share = _sigmoid(z_v + p["v_bias"])
            v = v0 + (first_values - v0) * share
        kk = self._heads(k0 * p["k_k"])
        size = np.maximum(np.linalg.norm(kk, axis=-1, keepdims=True), LEAST_NORM)
        kappa = kk / size
        k = k0 * (1 + (a - 1) * p["k_a"])
        rh, kh, vh, ah = (self._heads(part) for part in (r, k, v, a))
        log_w = self._heads(LEAST_LOG_DECAY * decay)
        inputs = (rh, log_w, kh, vh, kappa, -kappa * ah)
        wkv, kept_wkv = _wkv_documents(inputs, state.wkv[:, i], reset)
        normed, kept_norm = _normalise(wkv, HEAD_NORM_EPS)
        r_k = p["r_k"].reshape(self.config.n_head, -1)
        bonus = (rh * kh * r_k).sum(axis=-1, keepdims=True)
        y = self._join(normed) * p["head_norm.gain"] + p["head_norm.bias"]
        y = y + self._join(bonus * vh)
        out, kept_out = linear(y * gate, p["output"])
        linears = (kept_r, kept_k, kept_v, kept_w, kept_a, kept_g, kept_share)
        gates = (k0, v0, first_values, decay, a, share, gate, size, kappa)
        rest = (inputs, kept_wkv, normed, kept_norm, bonus, y, kept_out)
        return out, first_values, (d, kept_shift, linears, gates, *rest)

    def _time_mix_backward(
        self, dout: Array, dfirst_values: Array, kept: Kept, i: int, g: Gradients
    ) -> Array:
        """The gradient of the norm's output; adds to dfirst_values in place."""
        p = _Layer(self.parameters, f"layers.{i}.time_mix.")
        out: Gradients = {}
        d, kept_shift, linears, gates, inputs, *kept_read = kept
        kept_r, kept_k, kept_v, kept_w, kept_a, kept_g, kept_share = linears
        k0, v0, first_values, decay, a, share, gate, size, kappa = gates
        dgate, dr, dlog_w, dk, dv, dkappa, db = self._read_out_backward(
            dout, inputs, gate, kept_read, p, out
        )
        dkappa = dkappa - db * self._heads(a)
        da = self._join(-db * kappa) + dk * k0 * p["k_a"]
        dk0 = dk * (1 + (a - 1) * p["k_a"])
        out["k_a"] = (dk * k0 * (a - 1)).sum(axis=(0, 1))
        radial = (dkappa * kappa).sum(axis=-1, keepdims=True) * (size > LEAST_NORM)
        dkk = self._join((dkappa - kappa * radial) / size)
        dk0 = dk0 + dkk * p["k_k"]
        out["k_k"] = (dkk * k0).sum(axis=(0, 1))
        dmixed: Gradients = {name: np.zeros_like(d) for name in MIXES}
        if share is None:
            dv0 = dv + dfirst_values
        else:
            dv0 = dv * (1 - share)
            dfirst_values += dv * share
            dz = dv * (first_values - v0) * share * (1 - share)
            out["v_bias"] = dz.sum(axis=(0, 1))
            dmixed["v"] += _lora_backward(dz, kept_share, "v", out)
        dz = self._join(dlog_w) * LEAST_LOG_DECAY * decay * (1 - decay)
        out["w_bias"] = dz.sum(axis=(0, 1))
        dmixed["w"] += _lora_backward(dz, kept_w, "w", out)
        dz = da * a * (1 - a)
        out["a_bias"] = dz.sum(axis=(0, 1))
        dmixed["a"] += _lora_backward(dz, kept_a, "a", out)
        dmixed["g"] += _lora_backward(dgate, kept_g, "g", out)
        for name, part, matrix, kept_linear in (
            ("r", dr, "receptance", kept_r),
            ("k", dk0, "key", kept_k),
            ("v", dv0, "value", kept_v),
        ):
            dpart, out[matrix] = linear_backward(part, kept_linear)
            dmixed[name] += dpart
        dx: Array = np.zeros_like(d)
        dd: Array = np.zeros_like(d)
        for name in MIXES:
            dx += dmixed[name]
            dd += dmixed[name] * p[f"mix_{name}"]
            out[f"mix_{name}"] = (dmixed[name] * d).sum(axis=(0, 1))
        g |= {f"layers.{i}.time_mix.{name}": value for name, value in out.items()}
        dx += _shift_backward(dd, kept_shift)
        return dx

    def _read_out_backward(
        self, dout: Array, inputs: Kept, gate: Array, kept: Kept, p: _Layer, out: Gradients
    ) -> tuple[Array, ...]:
        """Gradients of the gate [B, T, C], of r, log w, k, v, kappa and -kappa a.

        r, k and v as [B, T, C], the others by head.
        """
        kept_wkv, normed, kept_norm, bonus, y, kept_out = kept
        rh, _, kh, vh, _, _ = inputs
        heads, join = self._heads, self._join
        dgated, out["output"] = linear_backward(dout, kept_out)
        dgate, dy = dgated * y, dgated * gate
        out["head_norm.gain"] = (dy * join(normed)).sum(axis=(0, 1))
        out["head_norm.bias"] = dy.sum(axis=(0, 1))
        dwkv = _normalise_backward(heads(dy * p["head_norm.gain"]), kept_norm)
        dr, dlog_w, dk, dv, dkappa, db = _wkv_documents_backward(dwkv, inputs, kept_wkv)
        r_k = p["r_k"].reshape(self.config.n_head, -1)
        dbonus = (heads(dy) * vh).sum(axis=-1, keepdims=True)
        out["r_k"] = (dbonus * rh * kh).sum(axis=(0, 1)).reshape(-1)
        dr, dk = dr + dbonus * kh * r_k, dk + dbonus * rh * r_k
        dv = dv + bonus * heads(dy)
        return dgate, join(dr), dlog_w, join(dk), join(dv), dkappa, db

    def _channel_mix(self, x: Array, i: int, state: RWKV7State, reset: Array) -> tuple[Array, Kept]:
        p = _Layer(self.parameters, f"layers.{i}.channel_mix.")
        d, kept_shift = _shift(x, state.channel_shift, i, reset)
        inner, kept_key = linear(x + d * p["mix_k"], p["key"])
        root = np.maximum(inner, 0)
        y, kept_value = linear(root * root, p["value"])
        return y, (d, kept_shift, kept_key, root, kept_value)

    def _channel_mix_backward(self, dy: Array, kept: Kept, i: int, g: Gradients) -> Array:
        d, kept_shift, kept_key, root, kept_value = kept
        name = f"layers.{i}.channel_mix"
        dsquare, g[f"{name}.value"] = linear_backward(dy, kept_value)
        dmixed, g[f"{name}.key"] = linear_backward(dsquare * 2 * root, kept_key)
        g[f"{name}.mix_k"] = (dmixed * d).sum(axis=(0, 1))
        dx: Array = dmixed + _shift_backward(dmixed * self.parameters[f"{name}.mix_k"], kept_shift)
        return dx

    def _norm(self, x: Array, name: str) -> tuple[Array, Kept]:
        """LayerNorm (Ba et al. 2016, arXiv:1607.06450)."""
        normed, kept = _normalise(x, self.config.norm_eps)
        p = self.parameters
        return normed * p[f"{name}.gain"] + p[f"{name}.bias"], kept

    def _norm_backward(self, dy: Array, kept: Kept, name: str, g: Gradients) -> Array:
        g[f"{name}.gain"] = (dy * kept[0]).sum(axis=(0, 1))
        g[f"{name}.bias"] = dy.sum(axis=(0, 1))
        return _normalise_backward(dy * self.parameters[f"{name}.gain"], kept)

    def _heads(self, x: Array) -> Array:
        return x.reshape(*x.shape[:2], self.config.n_head, -1)

    @staticmethod
    def _join(x: Array) -> Array:
        return x.reshape(*x.shape[:2], -1)


class _Layer:
    """The parameters of one part of one layer, by their last names."""

    def __init__(self, parameters: Mapping[str, Array], prefix: str) -> None:
        self._parameters, self._prefix = parameters, prefix

    def __getitem__(self, name: str) -> Array:
        return self._parameters[self._prefix + name]


def _sigmoid(x: Array) -> Array:
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def _normalise(x: Array, eps: float) -> tuple[Array, Kept]:
    """x less its mean over the last axis, over its standard deviation."""
    centred = x - x.mean(axis=-1, keepdims=True)
    rstd = ((centred * centred).mean(axis=-1, keepdims=True) + eps) ** -0.5
    return centred * rstd, (centred * rstd, rstd)


def _normalise_backward(dy: Array, kept: Kept) -> Array:
    normed, rstd = kept
    mean = dy.mean(axis=-1, keepdims=True)
    dx: Array = rstd * (dy - mean - normed * (dy * normed).mean(axis=-1, keepdims=True))
    return dx


def _lora(x: Array, p: _Layer, name: str, between: Any) -> tuple[Array, Kept]:
    """up between(down x); between is tanh, sigmoid or nothing."""
    low, kept_down = linear(x, p[f"{name}_down"])
    bent = low if between is None else between(low)
    y, kept_up = linear(bent, p[f"{name}_up"])
    slope = 1 if between is None else 1 - bent**2 if between is np.tanh else bent * (1 - bent)
    return y, (kept_down, slope, kept_up)


def _lora_backward(dy: Array, kept: Kept, name: str, g: Gradients) -> Array:
    kept_down, slope, kept_up = kept
    dbent, g[f"{name}_up"] = linear_backward(dy, kept_up)
    dx, g[f"{name}_down"] = linear_backward(dbent * slope, kept_down)
    return dx


def _shift(x: Array, states: Array, i: int, reset: Array) -> tuple[Array, Kept]:
    """What the token before was, less what this one is; states [B, L, C] goes on to the end."""
    before = np.concatenate([states[:, i, None], x[:, :-1]], axis=1)
    before[reset] = 0
    states[:, i] = x[:, -1]
    return before - x, reset


def _shift_backward(dd: Array, reset: Array) -> Array:
    """The state that came in is a constant."""
    dbefore = np.where(reset[..., None], 0, dd)
    dx = -dd
    dx[:, :-1] += dbefore[:, 1:]
    return dx


def _wkv_documents(inputs: tuple[Array, ...], state: Array, reset: Array) -> tuple[Array, Kept]:
    """wkv_loop, row by row and document by document; state [B, H, D, D] goes on to the end."""
    y, parts = np.empty_like(inputs[0]), []
    for row in range(len(y)):
        borders = [0, *(int(t) for t in np.flatnonzero(reset[row]) if t), y.shape[1]]
        for start, end in pairwise(borders):
            if reset[row, start]:
                state[row] = 0
            at = slice(row, row + 1), slice(start, end)
            r, log_w, k, v, q, b = (part[at] for part in inputs)
            y[at], states = wkv_loop(r, log_w, k, v, q, b, state[row : row + 1])
            state[row] = states[-1, 0]
            parts.append((at, states))
    return y, parts


def _wkv_documents_backward(dy: Array, inputs: tuple[Array, ...], kept: Kept) -> list[Array]:
    gradients = [np.empty_like(part) for part in inputs]
    for at, states in kept:
        r, log_w, k, v, q, b = (part[at] for part in inputs)
        found = wkv_loop_backward(dy[at], r, log_w, k, v, q, b, states)
        for gradient, part in zip(gradients, found, strict=True):
            gradient[at] = part
    return gradients
