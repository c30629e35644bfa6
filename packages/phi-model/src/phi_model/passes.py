"""The GPT's forward and backward pass over one worker's rows of a batch.

    ids -> embedding -> layers -> norm -> head -> losses, and all the way back

Plain functions over a workspace; which rows, and what becomes of the gradients, is the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_model.config import ModelConfig
from phi_model.cross_entropy import cross_entropy_backward
from phi_model.embedding import embed, embed_backward
from phi_model.layer import (
    attention_sublayer,
    attention_sublayer_backward,
    mlp_sublayer,
    mlp_sublayer_backward,
)
from phi_model.norm import rmsnorm, rmsnorm_backward
from phi_model.workspace import Workspace

__all__ = ["backward", "forward", "parameter_shapes"]

Array = NDArray[Any]
Table = Mapping[str, Array]


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter; matrices are [out, in]."""
    c, f, v = config.n_embd, config.n_hidden, config.vocab_size
    qk_gains = ("q_norm.gain", "k_norm.gain") if config.qk_norm else ()
    shapes: dict[str, tuple[int, ...]] = {"embedding": (v, c)}
    for i in range(config.n_layer):
        shapes |= {
            f"layers.{i}.attention_norm.gain": (c,),
            f"layers.{i}.attention.qkv": (c + 2 * config.n_kv_embd, c),  # rows: q, then k, then v
            **{f"layers.{i}.attention.{name}": (config.head_size,) for name in qk_gains},
            f"layers.{i}.attention.out": (c, c),
            f"layers.{i}.mlp_norm.gain": (c,),
            f"layers.{i}.mlp.gate_up": (2 * f, c),  # rows: gate, then up
            f"layers.{i}.mlp.down": (c, f),
        }
    shapes["final_norm.gain"] = (c,)
    return shapes if config.tied_head else shapes | {"head": (v, c)}


def forward(ws: Workspace, p: Table, ids: Array) -> None:
    """Fills ws.logits [V, N] for ids [B, T]."""
    c = ws.config
    embed(ids.ravel(), p["embedding"], x=ws.layers[0].x)
    for i, kept in enumerate(ws.layers):
        is_last = i == c.n_layer - 1
        attention_sublayer(ws, kept, p, i)
        mlp_sublayer(ws, kept, p, i, x_out=ws.x_final if is_last else ws.layers[i + 1].x)
    rmsnorm(ws.x_final, p["final_norm.gain"], c.norm_eps, y=ws.h_final, rrms=ws.rrms_final)
    np.matmul(p[c.head_name], ws.h_final, out=ws.logits)


def backward(ws: Workspace, p: Table, g: Table, ids: Array, targets: Array, factors: Array) -> None:
    """Writes every gradient of sum_n factors_n * loss_n into g, after cross_entropy.

    Each is written once, the embedding's is then added to: it starts as the tied head's
    gradient, or as zero. So nothing of the step before survives.
    """
    c = ws.config
    cross_entropy_backward(
        ws.logits,
        ws.total,
        targets.ravel(),
        factors.ravel(),
        ws.h_final,
        p[c.head_name],
        dh=ws.dh,
        dweight=g[c.head_name],
    )
    ws.dx[:] = 0
    rmsnorm_backward(
        ws.dh,
        ws.x_final,
        p["final_norm.gain"],
        ws.rrms_final,
        dx=ws.dx,
        dgain=g["final_norm.gain"],
        scratch=ws.scratch,
    )
    for i in reversed(range(c.n_layer)):
        mlp_sublayer_backward(ws, ws.layers[i], p, g, i)
        attention_sublayer_backward(ws, ws.layers[i], p, g, i)
    if not c.tied_head:
        g["embedding"][:] = 0
    embed_backward(ws.dx, ids.ravel(), dweight=g["embedding"])
