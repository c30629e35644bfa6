"""Causal softmax attention in [key, query] order, by blocks of queries.

A block of queries sees only the keys up to its own end, so the empty upper triangle is never
computed. Weights stay unnormalised: only the output is divided by their sum. No maximum is
subtracted; a sum that is not comfortably within range sends the block down a safe path.

K heads of keys and values serve K groups of G heads of queries (Ainslie et al. 2023,
arXiv:2305.13245); with G = 1 each head has its own. Arrays of queries are [B, K, G, D, T], those
of keys and values [B, K, 1, D, T]: products broadcast, nothing is repeated in memory.

Derived in docs/gradients.md, section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["BLOCK", "attention", "attention_backward", "blocks", "triangle"]

Array = NDArray[Any]

BLOCK = 64  # queries a block: smaller wastes less of the triangle, larger calls numpy less
SUM_RANGE = (1e-15, 1e30)  # of the unnormalised weights: well inside float32


def blocks(n_positions: int) -> Iterator[tuple[int, int]]:
    """(first, end) of each block of queries."""
    for first in range(0, n_positions, BLOCK):
        yield first, min(first + BLOCK, n_positions)


def attention(
    q: Array, k: Array, v: Array, *, weights: list[Array], inverse_sum: Array, out: Array
) -> None:
    """Writes out [B, K, G, D, T]; keeps weights and inverse_sum for the backward pass.

    q is like out, k and v are [B, K, 1, D, T], scores q.k already in units of log2 (see
    RopeTables); weights[j] is [B, K, G, end, end - first] of block j; inverse_sum is
    [B, K, G, 1, T].
    """
    with np.errstate(over="ignore", invalid="ignore"):
        _attend(q, k, v, weights, inverse_sum, out, _block_weights)
        within = SUM_RANGE[0] < inverse_sum.min() and inverse_sum.max() < SUM_RANGE[1]
    if not within:  # also when a NaN is among them
        _attend(q, k, v, weights, inverse_sum, out, _block_weights_safe)
    np.reciprocal(inverse_sum, out=inverse_sum)
    out *= inverse_sum


def _attend(
    q: Array,
    k: Array,
    v: Array,
    weights: list[Array],
    total: Array,
    out: Array,
    block_weights: Callable[[Array, Array, int, Array], None],
) -> None:
    ones = np.ones((1, q.shape[-1]), q.dtype)
    for (first, end), w in zip(blocks(q.shape[-1]), weights, strict=True):
        block_weights(q[..., first:end], k[..., :end], first, w)
        np.matmul(ones[:, :end], w, out=total[..., first:end])
        np.matmul(v[..., :end], w, out=out[..., first:end])


def _block_weights(q: Array, k: Array, first: int, w: Array) -> None:
    np.matmul(k.swapaxes(-1, -2), q, out=w)
    np.exp2(w, out=w)
    diagonal = w[..., first:, :]
    diagonal *= triangle(w.shape[-1], w.dtype)


def _block_weights_safe(q: Array, k: Array, first: int, w: Array) -> None:
    """The same up to a factor for each query, which the division by the sum removes."""
    np.matmul(k.swapaxes(-1, -2), q, out=w)
    np.copyto(w[..., first:, :], -np.inf, where=triangle(w.shape[-1], w.dtype) == 0)
    w -= w.max(axis=-2, keepdims=True)
    np.exp2(w, out=w)


@cache
def triangle(n: int, dtype: DTypeLike) -> Array:
    """1 where the key (row) is not later than the query (column), else 0; [n, n]."""
    return np.triu(np.ones((n, n), dtype))


def attention_backward(
    dout: Array,
    q: Array,
    k: Array,
    v: Array,
    *,
    out: Array,
    weights: list[Array],
    inverse_sum: Array,
    dq: Array,
    dk: Array,
    dv: Array,
    scratch: Array,
    dscores: list[Array],
) -> None:
    """Writes dq, dk, dv, shaped like q, k, v, but for the ln(2) of exp2; dout is used up.

    With p = weights * inverse_sum:  dv = dout p^T,  dscore = p * (v^T dout - sum_d dout * out),
    dq = k dscore,  dk = q dscore^T, dk and dv summed over the group. dscores are buffers
    shaped like weights, scratch like dout.
    """
    dout *= inverse_sum
    np.multiply(dout, out, out=scratch)
    delta = np.add.reduce(scratch, axis=-2, keepdims=True)
    spans = list(blocks(q.shape[-1]))
    for j in reversed(range(len(spans))):  # the last block sees every key, so it can write
        first, end = spans[j]
        w, ds, dout_block = weights[j], dscores[j], dout[..., first:end]
        np.matmul(v[..., :end].swapaxes(-1, -2), dout_block, out=ds)
        ds -= delta[..., first:end]
        ds *= w
        np.matmul(k[..., :end], ds, out=dq[..., first:end])
        for dkv, left, right in ((dk, q[..., first:end], ds), (dv, dout_block, w)):
            for g in range(q.shape[2]):
                one = np.s_[:, :, g : g + 1]
                writes = j == len(spans) - 1 and g == 0
                product = dkv if writes else scratch[:, :, :1, :, :end]
                np.matmul(left[one], right[one].swapaxes(-1, -2), out=product)
                if not writes:
                    dkv[..., :end] += product
