"""Many tokens of one text at once into a GPT's cache: matrix products in place of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.gpt_cache import GPTCache
from phi_infer.gpt_pass import GPTPass

__all__ = ["prefill"]

Array = NDArray[Any]

CHUNK = 128  # tokens a pass: what they make stays in cache


def prefill(cache: GPTCache, ids: Sequence[int] | Array) -> Array:
    """Reads ids, one or more; the logits [V] after the last."""
    tokens = np.asarray(ids)
    cache.make_room(len(tokens))
    size = min(CHUNK, cache.window, len(tokens))
    layers = GPTPass(cache.weights, size)
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, len(tokens), size):
            _read(cache, layers, tokens[first : first + size])
        return layers.last_logits()


def _read(cache: GPTCache, layers: GPTPass, tokens: Array) -> None:
    """T tokens, at most a window, through the layers and into the cache."""
    w, n = cache.weights, len(tokens)
    positions = np.arange(cache.position, cache.position + n)
    turns = w.turns(positions)[:, None]
    overwrites = cache.position + n > cache.window
    seen = _seen_rows(cache, positions)
    layers.embed(tokens)
    for layer, rows in zip(w.layers, cache.rows, strict=True):
        q, new = layers.qkv(layer, turns)
        if overwrites:  # what the first tokens still see, the last ones replace
            context = np.concatenate([rows[: cache.filled], new])
            rows[positions % cache.window] = new
        else:
            rows[cache.position : cache.position + n] = new
            context = rows[: cache.position + n]
        keys, values = cache.keys_and_values(context)
        heads = layers.attention(q.transpose(1, 2, 0, 3), keys[:, None], values[:, None], seen)
        layers.add_attended(layer, heads.transpose(2, 0, 1, 3))
        layers.add_mlp(layer)
    cache.position += n


def _seen_rows(cache: GPTCache, positions: Array) -> Array:
    """[T, n]: 1 where a token sees a row, of those in the cache and then its own chunk's."""
    old = np.arange(cache.filled)
    if cache.position > cache.window:  # row r holds the last position that is r in the ring
        old += (cache.position - 1 - old) // cache.window * cache.window
    distance = positions[:, None] - np.concatenate([old, positions])
    seen: Array = ((distance >= 0) & (distance < cache.window)).astype(np.float32)
    return seen
