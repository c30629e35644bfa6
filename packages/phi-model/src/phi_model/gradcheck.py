"""Every parameter's gradient against finite differences of the loss, in float64.

For each parameter: the slope along one random direction through all of its elements, and the
slope along a few single elements, each by a five-point difference (error of fourth order), next
to what the backward pass says.

>>> from phi_model import GPT, ModelConfig, check_gradients
>>> all(row.ok for row in check_gradients(GPT(ModelConfig.preset("gpt-1k"))))
True
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phi_model.build import build_model
from phi_model.language_model import LanguageModel

__all__ = ["TOLERANCE", "GradientCheck", "check_gradients"]

Array = NDArray[Any]

TOLERANCE = 1e-7  # relative; float64 leaves 1e-9 or so on sound gradients
ELEMENT_STEP = 1e-3  # balances the formula's h^4 error against float64's 1e-16 / h
DIRECTION_STEP = 3e-3  # a unit direction moves each element far less
ROUNDING = 1e-14  # of a loss in float64, relative, over a few thousand operations


@dataclass(frozen=True)
class GradientCheck:
    """One parameter's result; errors are relative to the gradient's own size."""

    name: str
    shape: tuple[int, ...]
    gradient_norm: float
    direction_error: float  # along one random direction through every element
    element_error: float  # the worst of a few single elements
    elements: int  # how many single elements were tried

    @property
    def error(self) -> float:
        """The larger of the two errors; NaN when either is."""
        return float(np.max([self.direction_error, self.element_error]))

    @property
    def ok(self) -> bool:
        """True when the error is below TOLERANCE (a NaN is not)."""
        return bool(self.error < TOLERANCE)


def check_gradients(
    model: LanguageModel,
    *,
    ids: ArrayLike | None = None,
    targets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    elements: int = 8,
    step: float | None = None,
    seed: int = 0,
) -> list[GradientCheck]:
    """A row for each parameter of a float64 copy of `model`.

    ids and targets [B, T] default to random ones of shape [2, 12]; `elements` single elements
    are tried in each parameter, for an embedding among the rows that the batch uses. step: of the
    finite differences; None: what suits the kind of model.
    A parameter of a new model's zero-sized residual branch has a small gradient: errors are
    relative to max(|gradient element|, gradient norm / sqrt(size)).
    """
    rng = np.random.default_rng(seed)
    step = model.difference_step if step is None else step
    steps = (DIRECTION_STEP, ELEMENT_STEP) if step is None else (step, step)
    copy = build_model(model.config, dtype=np.float64)
    copy.parameters.assign(model.parameters)
    shape = (2, min(12, model.config.seq_len))
    ids = rng.integers(0, model.config.vocab_size, shape) if ids is None else np.asarray(ids)
    targets = rng.integers(0, model.config.vocab_size, ids.shape) if targets is None else targets
    copy.loss_and_grad(ids, targets, weights)

    def loss() -> float:
        return copy.loss(ids, targets, weights)

    return [
        _check(name, value, copy.gradients[name].copy(), loss, elements, steps, rng)
        for name, value in copy.parameters.items()
    ]


def _check(
    name: str,
    value: Array,
    gradient: Array,
    loss: Callable[[], float],
    elements: int,
    steps: tuple[float, float],
    rng: np.random.Generator,
) -> GradientCheck:
    size = float(np.linalg.norm(gradient)) / np.sqrt(gradient.size)
    if size == 0:  # then slopes must vanish, too, but for their own rounding
        size = ROUNDING * abs(loss()) / min(steps) / TOLERANCE
    direction = rng.standard_normal(value.shape)
    direction /= np.linalg.norm(direction)
    slope = _slope(value, direction, steps[0], loss)
    direction_error = _relative(slope, float((gradient * direction).sum()), size)
    errors = [0.0]
    for index in _chosen(gradient, elements, rng):
        direction = np.zeros_like(value)
        direction[index] = 1
        slope = _slope(value, direction, steps[1], loss)
        errors.append(_relative(slope, float(gradient[index]), size))
    return GradientCheck(
        name=name,
        shape=value.shape,
        gradient_norm=float(np.linalg.norm(gradient)),
        direction_error=direction_error,
        element_error=float(np.max(errors)),
        elements=len(errors) - 1,
    )


def _chosen(gradient: Array, elements: int, rng: np.random.Generator) -> Iterator[tuple[int, ...]]:
    """Random elements, half of them among those whose gradient is not zero."""
    used = np.flatnonzero(gradient.ravel())
    picks = rng.choice(gradient.size, min(elements // 2, gradient.size), replace=False)
    if used.size:
        picks = np.r_[picks, rng.choice(used, min(elements - elements // 2, used.size), False)]
    for pick in np.unique(picks):
        yield tuple(int(i) for i in np.unravel_index(pick, gradient.shape))


def _slope(value: Array, direction: Array, step: float, loss: Callable[[], float]) -> float:
    """d loss / d direction by the five-point formula; `value` is left as it was."""
    start = value.copy()
    samples = []
    for multiple in (-2, -1, 1, 2):
        value[...] = start + multiple * step * direction
        samples.append(loss())
    value[...] = start
    return (samples[0] - 8 * samples[1] + 8 * samples[2] - samples[3]) / (12 * step)


def _relative(numeric: float, analytic: float, size: float) -> float:
    return abs(numeric - analytic) / max(abs(analytic), size, 1e-30)
