"""Checks that every optimiser shares."""

from __future__ import annotations

import math

from phi_optim.errors import HyperparameterError, NotFiniteError

__all__ = ["check_finite_scale", "check_range"]


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raises HyperparameterError unless low <= value < high."""
    if not low <= value < high:
        bound = "" if math.isinf(high) else f" and below {high:g}"
        raise HyperparameterError(f"{name} is {value}; it must be {low:g} or more{bound}")


def check_finite_scale(scale: float) -> None:
    """Raises NotFiniteError for a scale that would carry a NaN into the moments."""
    if not math.isfinite(scale):
        raise NotFiniteError(
            f"the gradients' scale is {scale}: they hold a NaN or an infinity; lower the "
            "learning rate, or clip earlier"
        )
