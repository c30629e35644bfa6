"""Channel mix: a squared relu between two matrices, after a token shift.

    x += value relu(key (h + (h_before - h) mix_k))^2,    h = channel_norm(x)

Derived in docs/rwkv7.md, section 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_model.rwkv7.layer_norm import normalise, normalise_backward, sum_tokens
from phi_model.rwkv7.shift import shift, shift_backward
from phi_model.rwkv7.workspace import LayerActivations, Workspace, rows

__all__ = ["channel_mix", "channel_mix_backward"]

Array = NDArray[Any]
Table = Mapping[str, Array]


def channel_mix(
    ws: Workspace, kept: LayerActivations, p: Table, i: int, reset: Array | None
) -> None:
    """ws.x -> ws.x."""
    layer = f"layers.{i}"
    normalise(ws.x, ws.config.norm_eps, normed=kept.channel_normed, rstd=kept.channel_rstd)
    np.multiply(kept.channel_normed, p[f"{layer}.channel_norm.gain"], out=ws.h)
    ws.h += p[f"{layer}.channel_norm.bias"]
    shift(ws.h, ws.state.channel_shift[:, i], reset, out=kept.channel_shift)
    np.multiply(kept.channel_shift, p[f"{layer}.channel_mix.mix_k"], out=kept.channel_mixed)
    kept.channel_mixed += ws.h
    np.matmul(rows(kept.channel_mixed), p[f"{layer}.channel_mix.key"].T, out=rows(kept.root))
    np.maximum(kept.root, 0, out=kept.root)
    np.multiply(kept.root, kept.root, out=ws.hidden)
    np.matmul(rows(ws.hidden), p[f"{layer}.channel_mix.value"].T, out=rows(ws.scratch))
    ws.x += ws.scratch


def channel_mix_backward(
    ws: Workspace, kept: LayerActivations, p: Table, g: Table, i: int, reset: Array | None
) -> None:
    """ws.dx arrives as the gradient of what channel_mix left and leaves as that of what it took."""
    layer = f"layers.{i}"
    dx = rows(ws.dx)
    np.multiply(kept.root, kept.root, out=ws.hidden)
    np.matmul(dx.T, rows(ws.hidden), out=g[f"{layer}.channel_mix.value"])
    np.matmul(dx, 2 * p[f"{layer}.channel_mix.value"], out=rows(ws.dhidden))  # (p^2)' = 2 p
    ws.dhidden *= kept.root
    np.matmul(rows(ws.dhidden).T, rows(kept.channel_mixed), out=g[f"{layer}.channel_mix.key"])
    np.matmul(rows(ws.dhidden), p[f"{layer}.channel_mix.key"], out=rows(ws.dh))
    np.multiply(ws.dh, kept.channel_shift, out=ws.scratch)
    sum_tokens(ws.scratch, out=g[f"{layer}.channel_mix.mix_k"])
    np.multiply(ws.dh, p[f"{layer}.channel_mix.mix_k"], out=ws.dshift)
    shift_backward(ws.dshift, reset, dh=ws.dh)
    norm_backward(ws, p, g, f"{layer}.channel_norm", kept.channel_normed, kept.channel_rstd)


def norm_backward(ws: Workspace, p: Table, g: Table, name: str, normed: Array, rstd: Array) -> None:
    """Takes ws.dh back through the norm `name` and adds it to ws.dx; ws.dh is used up."""
    np.multiply(ws.dh, normed, out=ws.scratch)
    sum_tokens(ws.scratch, out=g[f"{name}.gain"])
    sum_tokens(ws.dh, out=g[f"{name}.bias"])
    ws.dh *= p[f"{name}.gain"]
    normalise_backward(ws.dh, normed, rstd, scratch=ws.scratch)
    ws.dx += ws.dh
