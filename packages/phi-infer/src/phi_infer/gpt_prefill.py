"""Many tokens of one text at once into a GPT's cache: matrix products in place of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.gpt_cache import GPTCache
from phi_infer.gpt_weights import GPTLayer, GPTWeights

__all__ = ["attention", "mlp", "normalise", "prefill", "qkv"]

Array = NDArray[Any]

CHUNK = 128  # tokens a pass: what they make stays in cache
SUM_RANGE = (1e-30, 1e30)  # of attention's unnormalised weights: well inside float32


def prefill(cache: GPTCache, ids: Sequence[int] | Array) -> Array:
    """Reads ids, one or more; the logits [V] after the last."""
    tokens = np.asarray(ids)
    cache.make_room(len(tokens))
    size = min(CHUNK, cache.window)
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, len(tokens), size):
            x = _read(cache, tokens[first : first + size])
        logits: Array = np.dot(normalise(x[-1:])[0, :-1], cache.weights.head)
    return logits


def _read(cache: GPTCache, tokens: Array) -> Array:
    """The residual stream [T, C + 1] of T tokens, at most a window, which enter the cache."""
    w, n = cache.weights, len(tokens)
    positions = np.arange(cache.position, cache.position + n)
    turns = w.turns(positions)[:, None]
    overwrites = cache.position + n > cache.window
    seen = _seen_rows(cache, positions)
    x = embed(w, tokens)
    for layer, rows in zip(w.layers, cache.rows, strict=True):
        q, new = qkv(w, layer, x, turns)
        if overwrites:  # what the first tokens still see, the last ones replace
            context = np.concatenate([rows[: cache.filled], new])
            rows[positions % cache.window] = new
        else:
            rows[cache.position : cache.position + n] = new
            context = rows[: cache.position + n]
        keys, values = cache.keys_and_values(context)
        attended = attention(q.transpose(1, 2, 0, 3), keys[:, None], values[:, None], seen)
        x[:, :-1] += attended.transpose(2, 0, 1, 3).reshape(n, -1) @ layer.out
        x[:, :-1] += mlp(layer, x)
    cache.position += n
    return x


def _seen_rows(cache: GPTCache, positions: Array) -> Array:
    """[T, n]: 1 where a token sees a row, of those in the cache and then its own chunk's."""
    old = np.arange(cache.filled)
    if cache.position > cache.window:  # row r holds the last position that is r in the ring
        old += (cache.position - 1 - old) // cache.window * cache.window
    rows = np.concatenate([old, positions])
    distance = positions[:, None] - rows
    seen: Array = ((distance >= 0) & (distance < cache.window)).astype(np.float32)
    return seen


def embed(w: GPTWeights, tokens: Array) -> Array:
    """[n, C + 1]: the last column makes a norm's sum of squares never zero."""
    x = np.empty((len(tokens), w.config.n_embd + 1), np.float32)
    x[:, :-1] = w.embedding[tokens]
    x[:, -1] = w.eps
    return x


def normalise(x: Array) -> Array:
    """[n, C + 1]: RMSNorm but for what the weights hold; the last column is 1."""
    size = np.sqrt(np.vecdot(x, x))
    h: Array = x / size[:, None]
    h[:, -1] = 1
    return h


def qkv(w: GPTWeights, layer: GPTLayer, x: Array, turns: Array) -> tuple[Array, Array]:
    """Queries [n, K, G, D] and rows [n, R] for the cache, both turned by RoPE.

    x [n, C + 1]; turns [n, 1, D/2] of their positions.
    """
    c = w.config
    product = normalise(x) @ layer.qkv
    qk = product[:, : w.n_qk].reshape(len(x), -1, c.head_size)  # a view: rows are only longer
    if layer.qk_gain is not None:
        qk /= np.sqrt(np.vecdot(qk, qk) + w.head_eps)[..., None]
        qk *= layer.qk_gain
    planes = qk.view(np.complex64)
    planes *= turns
    q = qk[:, : c.n_head].reshape(len(x), c.n_kv_head, c.n_group, c.head_size)
    return q, product[:, c.n_embd : c.n_embd + w.n_row]


def attention(q: Array, keys: Array, values: Array, seen: Array | None = None) -> Array:
    """[..., D] of q [..., T, D] over keys [..., D, n] and values [..., n, D + 1].

    seen [T, n]: 1 where a row is seen, 0 where not. Without it all rows are, and those that are
    zero weigh nothing. The last value is 1, so the product with the weights ends in their sum; no
    maximum is subtracted until a sum is not comfortably within range.
    """
    scores = np.matmul(q, keys)
    weights = np.exp(scores)
    if seen is not None:
        weights *= seen
    sums = np.matmul(weights, values)
    total = sums[..., -1]
    if not (SUM_RANGE[0] < total.min() and total.max() < SUM_RANGE[1]):  # also for a NaN
        seen = values[..., None, :, -1] if seen is None else seen
        scores = np.where(seen > 0, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        sums = np.matmul(weights, values)
    attended: Array = sums[..., :-1] / sums[..., -1:]
    return attended


def mlp(layer: GPTLayer, x: Array) -> Array:
    """What SwiGLU adds to the residual stream, [n, C]."""
    gate, up = np.split(normalise(x)[:, :-1] @ layer.gate_up, 2, axis=1)
    up *= gate
    hidden = np.tanh(gate)
    hidden *= up
    hidden += up
    added: Array = hidden @ layer.down
    return added
