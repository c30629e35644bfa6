"""SPIN's loss (Chen et al. 2024, arXiv:2401.01335, equation 4.7) and its gradient.

For a real continuation y and the model's own continuation y' of the same prompt,

    m = lambda [(log p - log p_ref)(y) - (log p - log p_ref)(y')],    loss = -log sigmoid(m),

sums over the continuations' tokens alone, p_ref frozen. Then d loss / d theta is
-lambda sigmoid(-m) d log p(y) + lambda sigmoid(-m) d log p(y'): the gradient of token losses
-log p with weights +lambda sigmoid(-m) on y and -lambda sigmoid(-m) on y', so one loss_and_grad
gives it exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_model import LanguageModel
from phi_train.improve.rows import Row, collate

__all__ = ["pair_weights", "row_log_probs", "spin_loss", "spin_loss_and_grad"]

Array = NDArray[Any]


def row_log_probs(model: LanguageModel, rows: Sequence[Row]) -> Array:
    """log p of what is learnt of each row [n], nats, float64."""
    ids, targets, weights = collate(rows)
    return _sums(model, ids, targets, weights)


def _sums(model: LanguageModel, ids: Array, targets: Array, weights: Array) -> Array:
    sums: Array = (model.token_log_probs(ids, targets).astype(np.float64) * weights).sum(axis=1)
    return sums


def spin_loss(log_probs: Array, reference: Array, scale: float) -> tuple[float, Array]:
    """(mean loss, margins m [n]) from log p and log p_ref, [2n] each: the real ones first.

    scale: lambda.
    """
    gain = log_probs - reference
    n = gain.size // 2
    margins: Array = scale * (gain[:n] - gain[n:])
    return float(np.logaddexp(0.0, -margins).mean()), margins


def pair_weights(margins: Array, scale: float) -> Array:
    """What the token losses of each row are weighted with [2n], for the mean over pairs."""
    pull = scale * np.exp(-np.logaddexp(0.0, margins)) / margins.size  # scale sigmoid(-m) / n
    return np.concatenate([pull, -pull])


def spin_loss_and_grad(
    model: LanguageModel,
    real: Sequence[Row],
    own: Sequence[Row],
    reference: Array,
    *,
    scale: float,
) -> tuple[float, Array]:
    """(mean loss, margins [n]); the gradient of that loss is left in model.gradients.

    real, own: n rows each, of the same prompts. reference: log p_ref of both, [2n].
    """
    ids, targets, learnt = collate([*real, *own])
    loss, margins = spin_loss(_sums(model, ids, targets, learnt), reference, scale)
    weights = learnt * pair_weights(margins, scale)[:, None]
    # loss_and_grad divides by the number of weights that are not 0
    model.loss_and_grad(ids, targets, weights * max(1, np.count_nonzero(weights)))
    return loss, margins
