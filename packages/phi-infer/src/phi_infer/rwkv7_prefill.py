"""Many tokens of one text at once into an RWKV-7's state, by phi_model's chunked passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.rwkv7_weights import RWKV7Weights
from phi_model import RWKV7State
from phi_model.rwkv7.channel_mix import channel_mix
from phi_model.rwkv7.layer_norm import normalise
from phi_model.rwkv7.time_mix import time_mix
from phi_model.rwkv7.workspace import Workspace

__all__ = ["prefill"]

Array = NDArray[Any]

CHUNK = 128  # tokens a pass: what they make stays in cache


def prefill(weights: RWKV7Weights, state: RWKV7State, ids: Sequence[int] | Array) -> None:
    """Moves the state of one text on over ids; no logits are made."""
    tokens = np.asarray(ids)
    ws: Workspace | None = None
    for first in range(0, len(tokens), CHUNK):
        piece = tokens[first : first + CHUNK]
        if ws is None or ws.length != len(piece):
            ws = Workspace(weights.config, 1, len(piece), dtype=np.float32, keep=False)
        for name, array in ws.state.arrays.items():
            array[...] = state.arrays[name]
        _forward(ws, weights, piece)
        for name, array in ws.state.arrays.items():
            state.arrays[name][...] = array
        state.position += len(piece)


def _forward(ws: Workspace, weights: RWKV7Weights, tokens: Array) -> None:
    """phi_model.rwkv7.passes.forward but for the head."""
    p = weights.parameters
    ws.h[0] = weights.embedding[tokens]
    normalise(ws.h, weights.config.norm_eps, normed=ws.first_normed, rstd=ws.first_rstd)
    np.multiply(ws.first_normed, p["embedding_norm.gain"], out=ws.x)
    ws.x += p["embedding_norm.bias"]
    for i, kept in enumerate(ws.layers):
        time_mix(ws, kept, p, i, None)
        channel_mix(ws, kept, p, i, None)
