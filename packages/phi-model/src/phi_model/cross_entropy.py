"""The head and the softmax cross-entropy, fused, feature-major.

    logits = weight h,    loss_n = log(sum_v exp logits_vn) - logits_(target n)n

The logits [V, N] are the largest array of a small model, so they are touched as few times as
can be: exp in place, no division; each token's factor goes onto the C-sized side.
Derived in docs/gradients.md, section 7.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["cross_entropy", "cross_entropy_backward"]

Array = NDArray[Any]


def cross_entropy(logits: Array, targets: Array, *, total: Array) -> Array:
    """Losses [N] in nats; logits [V, N] become unnormalised probabilities, total [N] their sum."""
    columns = np.arange(targets.size)
    target_logits = logits[targets, columns]
    shift = _exp_in_place(logits, total)
    losses: Array = np.log(total)
    losses += shift
    losses -= target_logits
    return losses


def _exp_in_place(logits: Array, total: Array) -> Array | float:
    """exp(logits - shift) in place and its sums over V; a shift only where it is needed."""
    highest, lowest = logits.max(), logits.min()
    if lowest > -30 and highest < 60:  # exp(60) * 65,536 is far from float32's end
        np.exp(logits, out=logits)
        np.dot(np.ones(len(logits), logits.dtype), logits, out=total)
        return 0.0
    shift: Array = logits.max(axis=0)
    logits -= shift
    np.exp(logits, out=logits)
    np.add.reduce(logits, axis=0, out=total)
    return shift


def cross_entropy_backward(
    probabilities: Array,
    total: Array,
    targets: Array,
    token_weights: Array,
    h: Array,
    weight: Array,
    *,
    dh: Array,
    dweight: Array,
) -> None:
    """Writes dh [C, N] and dweight [V, C] of sum_n token_weights_n * loss_n.

    probabilities [V, N] and total [N] are what cross_entropy left behind; they are used up, and
    so is h [C, N]. dlogits_vn = (probabilities_vn / total_n - [v = target_n]) * token_weights_n.
    """
    columns = np.arange(targets.size)
    probabilities[targets, columns] -= total
    factor = token_weights / total
    np.matmul(weight.T, probabilities, out=dh)
    dh *= factor
    h *= factor
    np.matmul(probabilities, h.T, out=dweight)
