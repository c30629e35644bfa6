"""How each part of the model moves: the norm of its gradient, and how far an update takes it.

A group is a layer, or a parameter that stands outside of them (embedding, final_norm, head). An
update-to-weight ratio near 1e-3 is usual; far above it training shakes, far below it sleeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["GroupWatch", "group_of"]

Array = NDArray[Any]


def group_of(name: str) -> str:
    """The group of a parameter.

    >>> group_of("layers.3.mlp.down"), group_of("final_norm.gain"), group_of("embedding")
    ('layers.3', 'final_norm', 'embedding')
    """
    parts = name.split(".")
    return ".".join(parts[:2] if parts[0] == "layers" else parts[:1])


class GroupWatch:
    """Looks at one update: made before it, asked after it."""

    def __init__(self, parameters: Mapping[str, Array], gradients: Mapping[str, Array]) -> None:
        self._parameters = parameters
        self._before = {name: value.copy() for name, value in parameters.items()}
        self._gradient_norms = _norms(gradients)

    def measured(self) -> dict[str, dict[str, float]]:
        """group -> {"grad_norm" before clipping, "update_ratio" |change| / |weights before|}."""
        changed = {name: self._parameters[name] - value for name, value in self._before.items()}
        weights, updates = _norms(self._before), _norms(changed)
        return {
            group: {
                "grad_norm": self._gradient_norms[group],
                "update_ratio": updates[group] / weights[group] if weights[group] > 0 else 0.0,
            }
            for group in weights
        }


def _norms(arrays: Mapping[str, Array]) -> dict[str, float]:
    """group -> Euclidean norm over all of its arrays, summed in float64."""
    squares: dict[str, float] = {}
    for name, value in arrays.items():
        group = group_of(name)
        squares[group] = squares.get(group, 0.0) + float(np.square(value, dtype=np.float64).sum())
    return {group: float(np.sqrt(total)) for group, total in squares.items()}
