"""Clipping by the global norm (Pascanu et al. 2013, arXiv:1211.5063)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_optim.errors import HyperparameterError, NotFiniteError
from phi_optim.segments import flat_views

__all__ = ["clip_grad_norm", "clip_scale", "grad_norm"]

Array = NDArray[Any]

SUMMED = 32 * 1024  # elements summed in their own type; the sums of these are added in float64


def grad_norm(gradients: Mapping[str, Array]) -> float:
    """The Euclidean norm over all gradients together; NaN or infinite when an element is.

    Summed in blocks, the blocks' sums in float64 and in a fixed order.
    """
    total = 0.0
    for vector in flat_views(gradients).values():
        for start in range(0, vector.size, SUMMED):
            block = vector[start : start + SUMMED]
            with np.errstate(over="ignore"):  # then the scaled norm below is taken
                total += float(np.dot(block, block))
    if total < 1e-30 or not math.isfinite(total):  # squares may have left the type's range
        return _scaled_norm(gradients)
    return math.sqrt(total)


def _scaled_norm(gradients: Mapping[str, Array]) -> float:
    """The norm with every element divided by the largest first, so that no square over- or
    underflows.
    """
    largest = float(np.max([np.abs(v).max(initial=0) for v in gradients.values()], initial=0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    total = sum(float(((v / np.float64(largest)) ** 2).sum()) for v in gradients.values())
    return largest * math.sqrt(total)


def clip_scale(norm: float, max_norm: float) -> float:
    """The factor that brings `norm` down to max_norm, 1 where it is below.

    Raises HyperparameterError unless max_norm is positive; infinity means no clipping.
    """
    if not max_norm > 0:
        raise HyperparameterError(f"max_norm is {max_norm}; it must be above 0")
    if not math.isfinite(norm):
        return math.nan
    return min(1.0, max_norm / norm) if norm > 0 else 1.0


def clip_grad_norm(gradients: Mapping[str, Array], max_norm: float) -> float:
    """Scales all gradients in place so that their global norm is at most max_norm.

    Returns the norm before. Raises NotFiniteError, naming the first array at fault, when that
    norm is not finite.
    """
    norm = grad_norm(gradients)
    scale = clip_scale(norm, max_norm)
    if math.isnan(scale):
        faulty = [name for name, g in gradients.items() if not np.isfinite(g).all()]
        what = f"the gradient of {faulty[0]} holds" if faulty else "the norm of the gradients is"
        raise NotFiniteError(f"{what} a NaN or an infinity; lower the learning rate")
    if scale != 1:
        for vector in flat_views(gradients).values():
            np.multiply(vector, scale, out=vector)
    return norm
