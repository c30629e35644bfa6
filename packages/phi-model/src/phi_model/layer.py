"""One transformer layer on a workspace: attention and MLP, each with its backward beside it.

Residual stream x [C, N]:   x_mid = x + out attend(rope(qk_norm(qkv norm(x))))
                            x_out = x_mid + down swiglu(gate_up norm(x_mid))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_model.attention import attention, attention_backward
from phi_model.norm import rmsnorm, rmsnorm_backward
from phi_model.qk_norm import qk_norm, qk_norm_backward
from phi_model.rope import rotate
from phi_model.swiglu import swiglu, swiglu_backward
from phi_model.workspace import LayerActivations, Workspace

__all__ = [
    "attention_sublayer",
    "attention_sublayer_backward",
    "mlp_sublayer",
    "mlp_sublayer_backward",
]

Array = NDArray[Any]
Table = Mapping[str, Array]


def attention_sublayer(ws: Workspace, kept: LayerActivations, p: Table, i: int) -> None:
    """x -> x_mid."""
    rmsnorm(
        kept.x,
        p[f"layers.{i}.attention_norm.gain"],
        ws.config.norm_eps,
        y=kept.attention_h,
        rrms=kept.attention_rrms,
    )
    np.matmul(p[f"layers.{i}.attention.qkv"], kept.attention_h, out=kept.qkv)
    if ws.config.qk_norm:
        qk_norms(ws, kept, p, i)
    rotate(kept.planes, ws.rope.cos, ws.rope.sin, scratch=ws.plane_scratch)
    attention(
        kept.q,
        kept.k,
        kept.v,
        weights=kept.weights,
        inverse_sum=kept.inverse_sum,
        out=kept.attended_heads,
    )
    np.matmul(p[f"layers.{i}.attention.out"], kept.attended, out=ws.scratch)
    np.add(kept.x, ws.scratch, out=kept.x_mid)


def attention_sublayer_backward(
    ws: Workspace, kept: LayerActivations, p: Table, g: Table, i: int
) -> None:
    """ws.dx arrives as the gradient of x_mid and leaves as the gradient of x."""
    np.matmul(ws.dx, kept.attended.T, out=g[f"layers.{i}.attention.out"])
    np.matmul(p[f"layers.{i}.attention.out"].T, ws.dx, out=ws.dh)
    attention_backward(
        ws.dh_heads,
        kept.q,
        kept.k,
        kept.v,
        out=kept.attended_heads,
        weights=kept.weights,
        inverse_sum=kept.inverse_sum,
        dq=ws.dq,
        dk=ws.dk,
        dv=ws.dv,
        scratch=ws.scratch_heads,
        dscores=ws.dscores,
    )
    rotate(ws.dplanes, ws.rope.back_cos, ws.rope.back_sin, scratch=ws.plane_scratch)
    if ws.config.qk_norm:
        qk_norms_backward(ws, kept, p, g, i)
    np.matmul(ws.dqkv, kept.attention_h.T, out=g[f"layers.{i}.attention.qkv"])
    np.matmul(p[f"layers.{i}.attention.qkv"].T, ws.dqkv, out=ws.dh)
    rmsnorm_backward(
        ws.dh,
        kept.x,
        p[f"layers.{i}.attention_norm.gain"],
        kept.attention_rrms,
        dx=ws.dx,
        dgain=g[f"layers.{i}.attention_norm.gain"],
        scratch=ws.scratch,
    )


def qk_norms(ws: Workspace, kept: LayerActivations, p: Table, i: int) -> None:
    """Normalises the queries and keys of kept.qkv, head by head."""
    for name, rows, heads in ws.qk_parts:
        qk_norm(
            ws.by_head(kept.qkv[rows]),
            p[f"layers.{i}.attention.{name}_norm.gain"],
            ws.config.norm_eps,
            normed=ws.by_head(kept.qk_normed[rows]),
            rrms=kept.qk_rrms[heads],
        )


def qk_norms_backward(ws: Workspace, kept: LayerActivations, p: Table, g: Table, i: int) -> None:
    """Takes the queries' and keys' rows of ws.dqkv back through their norms."""
    for name, rows, heads in ws.qk_parts:
        gain = f"layers.{i}.attention.{name}_norm.gain"
        dy = ws.by_head(ws.dqkv[rows])
        qk_norm_backward(
            dy,
            p[gain],
            normed=ws.by_head(kept.qk_normed[rows]),
            rrms=kept.qk_rrms[heads],
            dgain=g[gain],
            scratch=ws.by_head(ws.scratch)[: len(dy)],
        )


def mlp_sublayer(ws: Workspace, kept: LayerActivations, p: Table, i: int, *, x_out: Array) -> None:
    """x_mid -> x_out."""
    f = ws.config.n_hidden
    rmsnorm(
        kept.x_mid,
        p[f"layers.{i}.mlp_norm.gain"],
        ws.config.norm_eps,
        y=kept.mlp_h,
        rrms=kept.mlp_rrms,
    )
    np.matmul(p[f"layers.{i}.mlp.gate_up"], kept.mlp_h, out=kept.gate_up)
    gate, up = kept.gate_up[:f], kept.gate_up[f:]
    swiglu(gate, up, y=kept.hidden, scratch=ws.swiglu_scratch, keep=ws.keep)
    np.matmul(p[f"layers.{i}.mlp.down"], kept.hidden, out=ws.scratch)
    np.add(kept.x_mid, ws.scratch, out=x_out)


def mlp_sublayer_backward(
    ws: Workspace, kept: LayerActivations, p: Table, g: Table, i: int
) -> None:
    """ws.dx arrives as the gradient of x_out and leaves as the gradient of x_mid."""
    f = ws.config.n_hidden
    np.matmul(ws.dx, kept.hidden.T, out=g[f"layers.{i}.mlp.down"])
    np.matmul(p[f"layers.{i}.mlp.down"].T, ws.dx, out=ws.dhidden)
    dgate_up = kept.gate_up
    swiglu_backward(ws.dhidden, dgate_up[:f], dgate_up[f:])
    np.matmul(dgate_up, kept.mlp_h.T, out=g[f"layers.{i}.mlp.gate_up"])
    np.matmul(p[f"layers.{i}.mlp.gate_up"].T, dgate_up, out=ws.dh)
    rmsnorm_backward(
        ws.dh,
        kept.x_mid,
        p[f"layers.{i}.mlp_norm.gain"],
        kept.mlp_rrms,
        dx=ws.dx,
        dgain=g[f"layers.{i}.mlp_norm.gain"],
        scratch=ws.scratch,
    )
