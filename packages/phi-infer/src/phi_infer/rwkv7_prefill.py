"""Many tokens of one text at once into an RWKV-7's state: matrix products, and the recurrence in
phi_model's chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.rwkv7_pass import add_channel_mix, add_time_mix, logits, norm
from phi_infer.rwkv7_weights import RWKV7Weights
from phi_model import RWKV7State
from phi_model.rwkv7.wkv_chunked import WKV

__all__ = ["prefill"]

Array = NDArray[Any]

CHUNK = 256  # tokens a pass: what they make stays in cache


def prefill(weights: RWKV7Weights, state: RWKV7State, ids: Sequence[int] | Array) -> Array:
    """Moves the state of one text on over ids, one or more; the logits [V] after the last."""
    tokens = np.asarray(ids)
    c, wkv = weights.config, None
    for first in range(0, len(tokens), CHUNK):
        piece = tokens[first : first + CHUNK]
        if wkv is None or wkv.r.shape[1] != len(piece):
            wkv = WKV(1, len(piece), c.n_head, c.head_size, dtype=np.float32, keep=False)
        x = _read(weights, state, wkv, piece)
    last: Array = logits(weights, x)[0]
    return last


def _read(weights: RWKV7Weights, state: RWKV7State, wkv: WKV, tokens: Array) -> Array:
    """The residual stream [1, C] of the last token: no other goes through all of the last layer."""
    x, first_values = weights.embed(tokens), None
    states = (state.time_shift[0], state.channel_shift[0], state.wkv[0])
    for layer, time_shift, channel_shift, heads in zip(weights.layers, *states, strict=True):

        def recur(*inputs: Array, heads: Array = heads) -> Array:
            for name, value in zip(("r", "log_w", "k", "v", "q", "b"), inputs, strict=True):
                getattr(wkv, name)[0] = value
            wkv.states[0, 0] = heads
            y: Array = wkv.forward()[0]
            heads[...] = wkv.states[-1, 0]
            return y

        h = norm(weights, x, layer.time_norm)
        before = _shifted(h, time_shift)
        first_values = add_time_mix(weights, layer, x, h, before, first_values, recur)
        h = norm(weights, x, layer.channel_norm)
        before = _shifted(h, channel_shift)
        if layer is weights.layers[-1]:
            x, h, before = x[-1:], h[-1:], before[-1:]
        add_channel_mix(layer, x, h, before)
    state.position += len(tokens)
    return x


def _shifted(h: Array, state: Array) -> Array:
    """For each row the row before it, for the first the state [C], which becomes the last row."""
    before = np.concatenate([state[None], h[:-1]])
    state[...] = h[-1]
    return before
