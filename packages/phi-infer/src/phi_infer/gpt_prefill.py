"""Many tokens of one text at once into a GPT's cache: matrix products in place of vectors.

Of the last layer only the last token's output is made: nothing but its logits depends on it. The
others leave their keys and values there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from phi_infer.gpt_cache import CHUNK, GPTCache
from phi_infer.gpt_pass import GPTPass

__all__ = ["prefill"]

Array = NDArray[Any]

QUERIES = 64  # tokens of a chunk that look back at once, none of them far beyond what it sees


class _Queries(NamedTuple):
    """Tokens of a chunk, how many rows of its context they look at, which of the last of these
    each one sees [T, m]; the rows before are seen by all.
    """

    tokens: slice
    n_rows: int
    seen: Array


def prefill(cache: GPTCache, ids: Sequence[int] | Array) -> Array:
    """Reads ids, one or more; the logits [V] after the last."""
    tokens = np.asarray(ids)
    cache.make_room(len(tokens))
    size = min(CHUNK, cache.window, len(tokens))
    layers = GPTPass(cache.weights, size)
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, len(tokens), size):
            _read(cache, layers, tokens[first : first + size])
        last: Array = layers.logits()[0]
    layers.end()
    return last


def _read(cache: GPTCache, layers: GPTPass, tokens: Array) -> None:
    """T tokens, at most a window, into the cache; the last one's residual stream is left."""
    w, n = cache.weights, len(tokens)
    positions = np.arange(cache.position, cache.position + n)
    turns = w.turns(positions)[:, None]
    parts = _split(cache, positions)
    layers.embed(tokens)
    for layer, *cached in zip(w.layers, cache.keys, cache.values, strict=True):
        q, *new = layers.qkv(layer, turns)
        keys, values = (
            _context(cache, rows, new_rows.swapaxes(0, 1), positions)
            for rows, new_rows in zip(cached, new, strict=True)
        )
        if layer is w.layers[-1]:
            layers.keep_last()
            q, parts = q[-1:], [_Queries(slice(1), keys.shape[1], parts[-1].seen[-1:])]
        for part in parts:
            seen = slice(part.n_rows)
            heads = q[part.tokens].transpose(1, 2, 0, 3)
            attended = layers.attention(
                heads, keys[:, None, seen], values[:, None, seen], part.seen
            )
            layers.attended[part.tokens] = attended.transpose(2, 0, 1, 3)
        layers.add_attended(layer)
        layers.add_mlp(layer)
    cache.position += n


def _context(cache: GPTCache, rows: Array, new: Array, positions: Array) -> Array:
    """Writes new rows [K, T, E] into one layer's [K, W, E]; all that the tokens look at [K, n, E],
    the new rows last.
    """
    end = cache.position + len(positions)
    if end <= cache.window:
        rows[:, cache.position : end] = new
        return rows[:, :end]
    context = np.concatenate([rows[:, : cache.filled], new], axis=1)  # some are overwritten
    rows[:, positions % cache.window] = new
    return context


def _split(cache: GPTCache, positions: Array) -> list[_Queries]:
    """A chunk in parts."""
    n, before = len(positions), cache.position
    if before + n > cache.window:
        return [_Queries(slice(n), cache.filled + n, _seen_rows(cache, positions))]
    causal = np.tri(QUERIES, dtype=np.float32)
    ends = [*range(QUERIES, n, QUERIES), n]
    starts = [0, *ends[:-1]]
    return [
        _Queries(slice(a, b), before + b, causal[: b - a, : b - a])
        for a, b in zip(starts, ends, strict=True)
    ]


def _seen_rows(cache: GPTCache, positions: Array) -> Array:
    """[T, n]: 1 where a token sees a row, of those in the cache and then its own chunk's."""
    old = np.arange(cache.filled)
    if cache.position > cache.window:  # row r holds the last position that is r in the ring
        old += (cache.position - 1 - old) // cache.window * cache.window
    distance = positions[:, None] - np.concatenate([old, positions])
    seen: Array = ((distance >= 0) & (distance < cache.window)).astype(np.float32)
    return seen
