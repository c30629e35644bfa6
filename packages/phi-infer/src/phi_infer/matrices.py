"""How a step multiplies a vector by a matrix [in, out], and how the matrix lies in memory for it.

BLAS's product with a row-major [in, out] matrix is the fastest there is while the matrix comes
from cache. A matrix that comes from main memory is read faster by one dot product for each
output, over rows of [out, in]: memory is then read from end to end, as it lies. Rows must be long
to be worth a call each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_model.parameters import FlatTable

__all__ = ["MatrixTable", "by_rows", "fill", "multiplier", "product"]

Array = NDArray[Any]

LONG_ROW = 192  # inputs: below, a call for each output costs more than it gains
LARGE = 1 << 21  # elements: with long rows, larger ones are read by rows also when they are wide
STRIP = 128  # rows transposed at a time: they stay in cache
FEW = 32  # vectors: for more of them OpenBLAS does best with the matrix as a whole
SMALL = 1_000_000  # multiply-adds: so many OpenBLAS makes without packing the matrix first
TILE = 16  # columns: widths of tiles are multiples of it


def by_rows(n_in: int, n_out: int) -> bool:
    """Whether a matrix lies as [out, in]."""
    return n_in >= LONG_ROW and (n_in >= n_out or n_in * n_out > LARGE)


class MatrixTable:
    """name -> matrix [in, out], zeros at first, each lying as by_rows has it; one buffer."""

    def __init__(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        lying = {name: s[::-1] if by_rows(*s) else s for name, s in shapes.items()}
        self._table = FlatTable(lying, dtype=np.float32)
        self._shapes = dict(shapes)

    def __getitem__(self, name: str) -> Array:
        array = self._table[name]
        return array.T if by_rows(*self._shapes[name]) else array


def fill(out: Array, matrix: Array, gain: Array | None = None) -> None:
    """Writes (matrix * gain).T into out [in, out], for matrix [out, in] and gain [in]."""
    for first in range(0, len(matrix), STRIP):
        strip = matrix[first : first + STRIP]
        out[:, first : first + STRIP] = (strip if gain is None else strip * gain).T


def multiplier(x: Array, n_out: int) -> Callable[..., Array]:
    """f(matrix, out=None) -> x @ matrix, for matrices [len(x), n_out] of a MatrixTable.

    x is read at each call. The bare method is returned where there is one: it is found faster
    than a function.
    """
    if not by_rows(len(x), n_out):
        return x.dot

    def multiply(matrix: Array, out: Array | None = None) -> Array:
        product: Array = np.vecdot(matrix.T, x, out=out)
        return product

    return multiply


def product(x: Array, matrix: Array, out: Array | None = None) -> Array:
    """x @ matrix for x [n, in] and matrix [in, out].

    A few vectors are multiplied by tiles of columns: BLAS would pack the whole matrix before each
    product, which takes as long as the product itself.
    """
    n_out = matrix.shape[1]
    if out is None:
        out = np.empty((len(x), n_out), np.float32)
    width = SMALL // x.size // TILE * TILE
    if len(x) > FEW or not 0 < width < n_out:
        np.matmul(x, matrix, out=out)
        return out
    for first in range(0, n_out, width):
        columns = slice(first, first + width)
        np.matmul(x, matrix[:, columns], out=out[:, columns])
    return out
