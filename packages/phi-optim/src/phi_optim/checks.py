"""Checks that every optimiser shares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_optim.errors import HyperparameterError, NotFiniteError, StateError
from phi_optim.segments import BLOCK, flat_views

__all__ = ["check_finite_gradients", "check_finite_scale", "check_gradients_fit", "check_range"]


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raises HyperparameterError unless low <= value < high."""
    if not low <= value < high:
        bound = " and finite" if math.isinf(high) else f" and below {high:g}"
        raise HyperparameterError(f"{name} is {value}; it must be {low:g} or more{bound}")


def check_finite_scale(scale: float) -> None:
    """Raises NotFiniteError for a scale that would carry a NaN into the moments."""
    if not math.isfinite(scale):
        raise NotFiniteError(
            f"the gradients' scale is {scale}: they hold a NaN or an infinity; lower the "
            "learning rate, or clip earlier"
        )


def check_finite_gradients(gradients: Mapping[str, NDArray[Any]]) -> None:
    """Raises NotFiniteError, naming the first array at fault, for a NaN or an infinity.

    A block's product with itself is finite when all its elements are, unless it overflows: it
    costs one pass of reading; the elements are looked at only where it is not.
    """
    for vector in flat_views(gradients).values():
        for start in range(0, vector.size, BLOCK):
            block = vector[start : start + BLOCK]
            with np.errstate(over="ignore", invalid="ignore"):
                suspicious = not math.isfinite(np.dot(block, block))
            if suspicious and not np.isfinite(block).all():
                faulty = [name for name, g in gradients.items() if not np.isfinite(g).all()]
                raise NotFiniteError(
                    f"the gradient of {faulty[0]} holds a NaN or an infinity; lower the learning "
                    "rate, or clip earlier"
                )


def check_gradients_fit(
    gradients: Mapping[str, NDArray[Any]], values: Mapping[str, NDArray[Any]]
) -> None:
    """Raises StateError unless both hold the same flat buffers, of the same sizes."""
    for name in values.keys() | gradients.keys():
        sizes = [table[name].size if name in table else "no" for table in (values, gradients)]
        if sizes[0] != sizes[1]:
            raise StateError(
                f"the gradients do not fit the parameters: {name or 'the flat buffer'} has "
                f"{sizes[0]} elements, its gradient {sizes[1]}"
            )
