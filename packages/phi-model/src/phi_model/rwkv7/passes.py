"""RWKV-7's forward and backward pass over one worker's rows of a batch.

    ids -> embedding -> norm -> layers -> norm -> head -> losses, and all the way back

Plain functions over a workspace; which rows, and what becomes of the gradients, is the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_model.cross_entropy import cross_entropy_backward
from phi_model.embedding import embed, embed_backward
from phi_model.rwkv7.channel_mix import channel_mix, channel_mix_backward, norm_backward
from phi_model.rwkv7.layer_norm import normalise
from phi_model.rwkv7.time_mix import time_mix, time_mix_backward
from phi_model.rwkv7.workspace import Workspace, rows

__all__ = ["backward", "forward"]

Array = NDArray[Any]
Table = Mapping[str, Array]


def forward(ws: Workspace, p: Table, ids: Array, reset: Array | None = None) -> None:
    """Fills ws.logits [V, N] for ids [B, T] after ws.state, which moves on to the end."""
    c = ws.config
    embed(ids.ravel(), p["embedding"], x=rows(ws.h).T)
    normalise(ws.h, c.norm_eps, normed=ws.first_normed, rstd=ws.first_rstd)
    np.multiply(ws.first_normed, p["embedding_norm.gain"], out=ws.x)
    ws.x += p["embedding_norm.bias"]
    for i, kept in enumerate(ws.layers):
        time_mix(ws, kept, p, i, reset)
        channel_mix(ws, kept, p, i, reset)
    normalise(ws.x, c.norm_eps, normed=ws.final_normed, rstd=ws.final_rstd)
    np.multiply(ws.final_normed, p["final_norm.gain"], out=ws.h)
    ws.h += p["final_norm.bias"]
    np.matmul(p[c.head_name], rows(ws.h).T, out=ws.logits)


def backward(
    ws: Workspace,
    p: Table,
    g: Table,
    ids: Array,
    targets: Array,
    factors: Array,
    reset: Array | None = None,
) -> None:
    """Writes every gradient of sum_n factors_n * loss_n into g, after cross_entropy.

    The state that came in is a constant: back-propagation ends at the batch's first token.
    """
    c = ws.config
    cross_entropy_backward(
        ws.logits,
        ws.total,
        targets.ravel(),
        factors.ravel(),
        rows(ws.h).T,
        p[c.head_name],
        dh=rows(ws.dh).T,
        dweight=g[c.head_name],
    )
    ws.dx[...] = 0
    ws.dfirst_values[...] = 0
    norm_backward(ws, p, g, "final_norm", ws.final_normed, ws.final_rstd)
    for i in reversed(range(c.n_layer)):
        channel_mix_backward(ws, ws.layers[i], p, g, i, reset)
        time_mix_backward(ws, ws.layers[i], p, g, i, reset)
    np.copyto(ws.dh, ws.dx)
    ws.dx[...] = 0
    norm_backward(ws, p, g, "embedding_norm", ws.first_normed, ws.first_rstd)
    if not c.tied_head:
        g["embedding"][...] = 0
    embed_backward(rows(ws.dx).T, ids.ravel(), dweight=g["embedding"])
