"""Named arrays that live in one flat buffer: values, gradients and scratch memory alike.

An optimiser sees one vector, a layer sees its matrix, and nothing is ever copied between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from phi_model.memory import ALIGNMENT, private_zeros

__all__ = ["FlatTable", "layout"]

Allocator = Callable[[int, DTypeLike], NDArray[Any]]


def layout(shapes: Mapping[str, tuple[int, ...]], dtype: DTypeLike) -> tuple[dict[str, int], int]:
    """Where each array of a FlatTable starts, and where the buffer ends, in elements."""
    step = max(1, ALIGNMENT // np.dtype(dtype).itemsize)
    starts: dict[str, int] = {}
    end = 0
    for name in sorted(shapes, key=lambda name: len(shapes[name]) < 2):
        starts[name] = end
        end += -(-prod(shapes[name]) // step) * step
    return starts, end


class FlatTable(Mapping[str, NDArray[Any]]):
    """name -> array view of one flat, aligned buffer.

    Matrices are placed before vectors, so that a rule for one kind (weight decay) is one range.
    Gaps between tensors, there for alignment, are zero and stay zero.

    >>> table = FlatTable({"gain": (3,), "weight": (2, 3)}, dtype=np.float32)
    >>> table["weight"].shape, table.ranges["weight"], table.ranges["gain"]
    ((2, 3), (0, 6), (16, 19))
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        *,
        dtype: DTypeLike,
        allocate: Allocator = private_zeros,
    ) -> None:
        self.dtype = np.dtype(dtype)
        starts, end = layout(shapes, self.dtype)
        self._allocate = allocate
        self.flat: NDArray[Any] = allocate(end, self.dtype)
        self.ranges: dict[str, tuple[int, int]] = {
            name: (starts[name], starts[name] + prod(shape)) for name, shape in shapes.items()
        }
        self._views = {
            name: self.flat[slice(*self.ranges[name])].reshape(shape)
            for name, shape in shapes.items()
        }

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def __repr__(self) -> str:
        return f"<FlatTable: {len(self)} arrays, {self.flat.size} x {self.dtype} in one buffer>"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """name -> shape, in the order of the names."""
        return {name: view.shape for name, view in self._views.items()}

    def like(self, dtype: DTypeLike | None = None) -> FlatTable:
        """A table of the same names and shapes, filled with zeros."""
        return FlatTable(self.shapes, dtype=dtype or self.dtype, allocate=self._allocate)

    def assign(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Copies every array of `values` in; names and shapes must be exactly these."""
        if set(values) != set(self):
            odd = sorted(set(values) ^ set(self))
            raise KeyError(f"the two tables do not name the same arrays: {', '.join(odd)}")
        for name, value in values.items():
            if value.shape != self[name].shape:
                raise ValueError(f"{name} has shape {value.shape}, not {self[name].shape}")
            self[name][...] = value
