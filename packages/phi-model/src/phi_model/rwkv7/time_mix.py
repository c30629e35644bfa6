"""Time mix: what an RWKV-7 has in attention's place, on a workspace; docs/rwkv7.md, section 8.

x += output (gate * (head_norm(wkv) + bonus)),    h = time_norm(x), six mixes of it and its
neighbour make r, k, v, the decay w, the rate a and the gate
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_model.rwkv7.channel_mix import norm_backward
from phi_model.rwkv7.layer_norm import normalise, normalise_backward, sum_tokens
from phi_model.rwkv7.parameters import MIXES
from phi_model.rwkv7.shift import shift, shift_backward
from phi_model.rwkv7.workspace import LayerActivations, Workspace, rows

__all__ = ["HEAD_NORM_EPS", "LEAST_LOG_DECAY", "LEAST_NORM", "time_mix", "time_mix_backward"]

Array = NDArray[Any]
Table = Mapping[str, Array]

LEAST_LOG_DECAY = -math.exp(-0.5)  # w is never below 0.545
HEAD_NORM_EPS = 64e-5
LEAST_NORM = 1e-12  # of kappa before it is normalised
R, W, K, V, A, G = range(len(MIXES))


def time_mix(ws: Workspace, kept: LayerActivations, p: Table, i: int, reset: Array | None) -> None:
    """ws.x -> ws.x; the first layer also writes ws.first_values."""
    part = f"layers.{i}.time_mix"
    normalise(ws.x, ws.config.norm_eps, normed=kept.time_normed, rstd=kept.time_rstd)
    np.multiply(kept.time_normed, p[f"layers.{i}.time_norm.gain"], out=ws.h)
    ws.h += p[f"layers.{i}.time_norm.bias"]
    shift(ws.h, ws.state.time_shift[:, i], reset, out=kept.time_shift)
    np.multiply(kept.time_shift, mixes(p, part), out=kept.mixed)
    kept.mixed += ws.h
    wkv = kept.wkv
    np.matmul(kept.mixed[R], p[f"{part}.receptance"].T, out=wkv.r)
    _decay(kept, p, part)
    _values(ws, kept, p, part, i)
    _keys(ws, kept, p, part)
    low = np.matmul(rows(kept.mixed[G]), p[f"{part}.g_down"].T, out=rows(kept.low_g))
    _sigmoid(low, 1.0)
    np.matmul(low, p[f"{part}.g_up"].T, out=rows(kept.gate))
    wkv.states[0] = ws.state.wkv[:, i]
    wkv.forward(reset)
    ws.state.wkv[:, i] = wkv.states[-1]
    _read_out(ws, kept, p, part)
    np.matmul(rows(kept.gated), p[f"{part}.output"].T, out=rows(ws.scratch))
    ws.x += ws.scratch


def mixes(p: Table, part: str) -> Array:
    """The six token-shift mixes [6, 1, 1, C]."""
    return np.stack([p[f"{part}.mix_{name}"] for name in MIXES])[:, None, None]


def _sigmoid(x: Array, scale: float) -> None:
    """scale * sigmoid(x), in place; tanh cannot overflow."""
    x *= 0.5
    np.tanh(x, out=x)
    x += 1
    x *= 0.5 * scale


def _low_rank_sigmoid(low: Array, p: Table, name: str, scale: float, *, out: Array) -> None:
    """Writes scale * sigmoid(up low + bias)."""
    np.matmul(low, p[f"{name}_up"].T, out=out)
    out += p[f"{name}_bias"]
    _sigmoid(out, scale)


def _decay(kept: LayerActivations, p: Table, part: str) -> None:
    low = np.matmul(rows(kept.mixed[W]), p[f"{part}.w_down"].T, out=rows(kept.low_w))
    np.tanh(low, out=low)
    _low_rank_sigmoid(kept.low_w, p, f"{part}.w", LEAST_LOG_DECAY, out=kept.wkv.log_w)


def _values(ws: Workspace, kept: LayerActivations, p: Table, part: str, i: int) -> None:
    """v, in later layers drawn towards the first layer's values."""
    if i == 0:
        np.matmul(rows(kept.mixed[V]), p[f"{part}.value"].T, out=rows(ws.first_values))
        kept.wkv.v[...] = ws.first_values
        return
    np.matmul(rows(kept.mixed[V]), p[f"{part}.value"].T, out=rows(kept.v0))
    np.matmul(rows(kept.mixed[V]), p[f"{part}.v_down"].T, out=rows(kept.low_v))
    _low_rank_sigmoid(kept.low_v, p, f"{part}.v", 1.0, out=kept.share)
    np.subtract(ws.first_values, kept.v0, out=kept.wkv.v)
    kept.wkv.v *= kept.share
    kept.wkv.v += kept.v0


def _keys(ws: Workspace, kept: LayerActivations, p: Table, part: str) -> None:
    """k, q (kappa) and b (-kappa * a)."""
    wkv = kept.wkv
    np.matmul(rows(kept.mixed[A]), p[f"{part}.a_down"].T, out=rows(kept.low_a))
    _low_rank_sigmoid(kept.low_a, p, f"{part}.a", -1.0, out=kept.minus_a)
    np.matmul(rows(kept.mixed[K]), p[f"{part}.key"].T, out=rows(kept.k0))
    np.multiply(kept.minus_a, -p[f"{part}.k_a"], out=kept.k_scale)
    kept.k_scale += 1 - p[f"{part}.k_a"]
    np.multiply(kept.k0, kept.k_scale, out=wkv.k)
    np.multiply(kept.k0, p[f"{part}.k_k"], out=wkv.q)
    kappa, inverse = ws.heads(wkv.q), kept.inverse_size
    np.vecdot(kappa, kappa, out=inverse)
    np.sqrt(inverse, out=inverse)
    np.maximum(inverse, LEAST_NORM, out=inverse)
    np.reciprocal(inverse, out=inverse)
    kappa *= inverse[..., None]
    np.multiply(wkv.q, kept.minus_a, out=wkv.b)


def _read_out(ws: Workspace, kept: LayerActivations, p: Table, part: str) -> None:
    """The norm of each head, the bonus of the token itself, the gate."""
    wkv = kept.wkv
    normalise(
        ws.heads(wkv.y), HEAD_NORM_EPS, normed=ws.heads(kept.head_normed), rstd=kept.head_rstd
    )
    np.multiply(kept.head_normed, p[f"{part}.head_norm.gain"], out=kept.ungated)
    kept.ungated += p[f"{part}.head_norm.bias"]
    np.multiply(wkv.r, p[f"{part}.r_k"], out=ws.scratch)
    np.vecdot(ws.heads(ws.scratch), ws.heads(wkv.k), out=kept.bonus)
    np.multiply(ws.heads(wkv.v), kept.bonus[..., None], out=ws.heads(ws.scratch))
    kept.ungated += ws.scratch
    np.multiply(kept.ungated, kept.gate, out=kept.gated)


def time_mix_backward(
    ws: Workspace, kept: LayerActivations, p: Table, g: Table, i: int, reset: Array | None
) -> None:
    """ws.dx arrives as the gradient of what time_mix left and leaves as that of what it took.

    ws.dfirst_values gathers the later layers' share; the first layer uses it up.
    """
    part = f"layers.{i}.time_mix"
    wkv, dmixed = kept.wkv, ws.dmixed
    np.matmul(rows(ws.dx).T, rows(kept.gated), out=g[f"{part}.output"])
    np.matmul(rows(ws.dx), p[f"{part}.output"], out=rows(ws.dy))
    np.multiply(ws.dy, kept.ungated, out=ws.dgate)
    ws.dy *= kept.gate
    _lora_backward(ws, kept, p, g, f"{part}.g", ws.dgate)
    _read_out_backward(ws, kept, p, g, part)
    _keys_backward(ws, kept, p, g, part)
    _values_backward(ws, kept, p, g, part, i)
    _decay_backward(ws, kept, p, g, part)
    _linear_backward(wkv.dr, kept.mixed[R], p, g, f"{part}.receptance", out=dmixed[R])
    _linear_backward(ws.dk0, kept.mixed[K], p, g, f"{part}.key", out=dmixed[K])
    _mixes_backward(ws, kept, p, g, part)
    shift_backward(ws.dshift, reset, dh=ws.dh)
    norm_backward(ws, p, g, f"layers.{i}.time_norm", kept.time_normed, kept.time_rstd)


def _linear_backward(dy: Array, x: Array, p: Table, g: Table, name: str, *, out: Array) -> None:
    """Writes the gradients of the matrix `name` and of x [B, T, C]."""
    np.matmul(rows(dy).T, rows(x), out=g[name])
    np.matmul(rows(dy), p[name], out=rows(out))


def _lora_backward(
    ws: Workspace, kept: LayerActivations, p: Table, g: Table, name: str, dz: Array
) -> None:
    """From dz [B, T, C], the gradient of the LoRA's output, to that of its mix of tokens.

    dmixed of v is added to, the others' are written.
    """
    letter = name[-1]
    low, dlow = getattr(kept, f"low_{letter}"), getattr(ws, f"dlow_{letter}")
    _linear_backward(dz, low, p, g, f"{name}_up", out=dlow)
    if letter == "w":
        dlow *= 1 - low * low
    elif letter == "g":
        dlow *= low * (1 - low)
    mixed, dmixed = kept.mixed[MIXES.index(letter)], ws.dmixed[MIXES.index(letter)]
    _linear_backward(dlow, mixed, p, g, f"{name}_down", out=ws.scratch if letter == "v" else dmixed)
    if letter == "v":
        dmixed += ws.scratch


def _read_out_backward(
    ws: Workspace, kept: LayerActivations, p: Table, g: Table, part: str
) -> None:
    """From ws.dy, the gradient of `ungated`, through the recurrence: wkv.dr .. wkv.db."""
    wkv, scratch, dy = kept.wkv, ws.scratch, ws.dy
    np.multiply(dy, kept.head_normed, out=scratch)
    sum_tokens(scratch, out=g[f"{part}.head_norm.gain"])
    sum_tokens(dy, out=g[f"{part}.head_norm.bias"])
    np.multiply(dy, p[f"{part}.head_norm.gain"], out=wkv.dy)
    normalise_backward(
        ws.heads(wkv.dy), ws.heads(kept.head_normed), kept.head_rstd, scratch=ws.heads(scratch)
    )
    wkv.backward()
    dbonus = np.vecdot(ws.heads(dy), ws.heads(wkv.v))[..., None]
    ws.heads(dy)[...] *= kept.bonus[..., None]
    wkv.dv += dy
    own = ws.heads(ws.da)
    np.multiply(ws.heads(wkv.k), dbonus, out=own)
    np.multiply(ws.da, wkv.r, out=scratch)
    sum_tokens(scratch, out=g[f"{part}.r_k"])
    ws.da *= p[f"{part}.r_k"]
    wkv.dr += ws.da
    np.multiply(ws.heads(wkv.r), dbonus, out=own)
    ws.da *= p[f"{part}.r_k"]
    wkv.dk += ws.da


def _keys_backward(ws: Workspace, kept: LayerActivations, p: Table, g: Table, part: str) -> None:
    """From wkv.dk, wkv.dq and wkv.db to ws.dk0 and the LoRA of a."""
    wkv, scratch, da = kept.wkv, ws.scratch, ws.da
    k_a, k_k = p[f"{part}.k_a"], p[f"{part}.k_k"]
    np.multiply(wkv.db, wkv.q, out=da)  # of -a
    np.multiply(wkv.db, kept.minus_a, out=scratch)
    wkv.dq += scratch
    np.multiply(wkv.dk, kept.k_scale, out=ws.dk0)
    wkv.dk *= kept.k0
    less = np.add(kept.minus_a, 1, out=wkv.db)  # 1 - a, as k is k0 (1 - (1 - a) k_a)
    np.multiply(wkv.dk, less, out=scratch)
    sum_tokens(scratch, out=g[f"{part}.k_a"])
    np.negative(g[f"{part}.k_a"], out=g[f"{part}.k_a"])
    wkv.dk *= k_a
    da -= wkv.dk
    less *= kept.minus_a  # the slope of -sigmoid
    da *= less
    sum_tokens(da, out=g[f"{part}.a_bias"])
    _lora_backward(ws, kept, p, g, f"{part}.a", da)
    kappa, dkappa = ws.heads(wkv.q), ws.heads(wkv.dq)
    radial = np.vecdot(dkappa, kappa)
    radial *= kept.inverse_size < 1 / LEAST_NORM
    np.multiply(kappa, radial[..., None], out=ws.heads(scratch))
    wkv.dq -= scratch
    dkappa *= kept.inverse_size[..., None]
    np.multiply(wkv.dq, kept.k0, out=scratch)
    sum_tokens(scratch, out=g[f"{part}.k_k"])
    wkv.dq *= k_k
    ws.dk0 += wkv.dq


def _values_backward(
    ws: Workspace, kept: LayerActivations, p: Table, g: Table, part: str, i: int
) -> None:
    """From wkv.dv to the matrix and the LoRA of the values."""
    wkv, dv0 = kept.wkv, ws.dy
    if i == 0:
        np.add(wkv.dv, ws.dfirst_values, out=dv0)
        _linear_backward(dv0, kept.mixed[V], p, g, f"{part}.value", out=ws.dmixed[V])
        return
    given = np.multiply(wkv.dv, kept.share, out=ws.dgate)
    ws.dfirst_values += given
    np.subtract(wkv.dv, given, out=dv0)
    _linear_backward(dv0, kept.mixed[V], p, g, f"{part}.value", out=ws.dmixed[V])
    np.subtract(ws.first_values, kept.v0, out=ws.scratch)
    given *= ws.scratch
    np.subtract(1, kept.share, out=ws.scratch)
    given *= ws.scratch
    sum_tokens(given, out=g[f"{part}.v_bias"])
    _lora_backward(ws, kept, p, g, f"{part}.v", given)


def _decay_backward(ws: Workspace, kept: LayerActivations, p: Table, g: Table, part: str) -> None:
    """From wkv.dlog_w to the LoRA of the decay: d sigmoid = s (1 - s), with log_w for s."""
    wkv, dz = kept.wkv, ws.dgate
    np.multiply(wkv.log_w, -1 / LEAST_LOG_DECAY, out=dz)
    dz += 1
    dz *= wkv.log_w
    dz *= wkv.dlog_w
    sum_tokens(dz, out=g[f"{part}.w_bias"])
    _lora_backward(ws, kept, p, g, f"{part}.w", dz)


def _mixes_backward(ws: Workspace, kept: LayerActivations, p: Table, g: Table, part: str) -> None:
    """From ws.dmixed to ws.dh and ws.dshift."""
    ws.dshift[...] = 0
    np.add.reduce(ws.dmixed, axis=0, out=ws.dh)
    for i, name in enumerate(MIXES):
        np.multiply(ws.dmixed[i], kept.time_shift, out=ws.scratch)
        sum_tokens(ws.scratch, out=g[f"{part}.mix_{name}"])
        np.multiply(ws.dmixed[i], p[f"{part}.mix_{name}"], out=ws.scratch)
        ws.dshift += ws.scratch
