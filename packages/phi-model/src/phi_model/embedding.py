"""Token embedding: a row of the matrix for each token. docs/gradients.md, section 2."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["embed", "embed_backward"]

Array = NDArray[Any]


def embed(ids: Array, weight: Array, *, x: Array) -> None:
    """Writes x [C, N]: column n is row ids[n] of weight [V, C]."""
    np.copyto(x, weight[ids].T)


def embed_backward(dx: Array, ids: Array, *, dweight: Array) -> None:
    """Adds column n of dx [C, N] to row ids[n] of dweight [V, C].

    Equal ids are brought together by a stable sort and summed as one run, so the order of
    summation, and with it the last bit, depends on nothing but ids.
    """
    order = np.argsort(ids, kind="stable")
    sorted_ids = ids[order]
    starts = np.flatnonzero(np.r_[True, sorted_ids[1:] != sorted_ids[:-1]])
    columns = np.add.reduceat(dx.take(order, axis=1), starts, axis=1)
    dweight[sorted_ids[starts]] += columns.T
