"""How a step multiplies a vector by a matrix [in, out], and how the matrix lies in memory for it.

BLAS's product with a row-major [in, out] matrix is the fastest there is while the matrix comes
from cache. A matrix that comes from main memory, as those of a model larger than the cache do, is
read faster by one dot product for each output, over rows of [out, in]: memory is then read from
end to end, as it lies. Rows must be long to be worth a call each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_model.parameters import FlatTable

__all__ = ["MatrixTable", "fill", "lies_by_rows", "multiplier", "product"]

Array = NDArray[Any]

LONG_ROW = 192  # inputs: below, a call for each output costs more than it gains
LARGE = 1 << 21  # elements of all matrices: 8 MB; more come from memory, or from a slow cache
STRIP = 128  # rows transposed at a time: they stay in cache
FEW = 32  # vectors: for more of them OpenBLAS does best with the matrix as a whole
SMALL = 1_000_000  # multiply-adds: so many OpenBLAS makes without packing the matrix first
SMALL_OUTPUT = 1_100  # elements of a product: as many, when the matrix is read by rows
TILE = 16  # columns: widths of tiles are multiples of it


class MatrixTable:
    """name -> matrix [in, out], zeros at first, each lying as it is read best; one buffer."""

    def __init__(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        is_large = sum(n_in * n_out for n_in, n_out in shapes.values()) > LARGE
        self._by_rows = {
            name for name, (n_in, _) in shapes.items() if is_large and n_in >= LONG_ROW
        }
        lying = {name: s[::-1] if name in self._by_rows else s for name, s in shapes.items()}
        self._table = FlatTable(lying, dtype=np.float32)

    def __getitem__(self, name: str) -> Array:
        array = self._table[name]
        return array.T if name in self._by_rows else array


def lies_by_rows(matrix: Array) -> bool:
    """Whether a matrix [in, out] of a MatrixTable lies as [out, in]."""
    return matrix.strides[0] < matrix.strides[1]


def fill(out: Array, matrix: Array, gain: Array | None = None) -> None:
    """Writes (matrix * gain).T into out [in, out], for matrix [out, in] and gain [in]."""
    if lies_by_rows(out):
        np.multiply(matrix, np.float32(1) if gain is None else gain, out=out.T)
        return
    for first in range(0, len(matrix), STRIP):
        strip = matrix[first : first + STRIP]
        out[:, first : first + STRIP] = (strip if gain is None else strip * gain).T


def multiplier(x: Array, like: Array) -> Callable[..., Array]:
    """f(matrix, out=None) -> x @ matrix, for matrices [in, out] that lie as `like` does.

    x is read at each call. The bare method is returned where there is one: it is found faster
    than a function.
    """
    if not lies_by_rows(like):
        return x.dot

    vecdot = np.vecdot

    def multiply(matrix: Array, out: Array | None = None) -> Array:
        product: Array = vecdot(matrix.T, x, out)
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
    if len(x) == 1:
        multiplier(x[0], matrix)(matrix, out[0])
        return out
    width = SMALL // x.size
    if lies_by_rows(matrix):
        width = min(width, SMALL_OUTPUT // len(x))
    width = width // TILE * TILE
    if len(x) > FEW or not 0 < width < n_out:
        np.matmul(x, matrix, out=out)
        return out
    for first in range(0, n_out, width):
        columns = slice(first, first + width)
        np.matmul(x, matrix[:, columns], out=out[:, columns])
    return out
