"""Checks that every optimiser shares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from phi_optim.errors import HyperparameterError, NotFiniteError, StateError

__all__ = ["check_finite_scale", "check_gradients_fit", "check_range"]


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
