"""Small batches together give the gradient of the large one, and the same training."""

from __future__ import annotations

import numpy as np
import pytest

from phi_optim import OPTIMIZERS, GradientMean, HyperparameterError, StateError, make_optimizer
from phi_optim.segments import BLOCK


def _gradients(weights, inputs, targets):
    """Of the mean squared error of a linear layer."""
    error = inputs @ weights["w"] + weights["b"] - targets
    return {"w": 2 * inputs.T @ error / len(inputs), "b": 2 * error.mean(0)}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("cuts", [[6], [1, 2, 9], [4, 8]])
def test_equals_the_large_batch_to_rounding(name, cuts):
    """Also with batches of unequal size, over several steps."""
    rng = np.random.default_rng(0)
    large = {"w": rng.standard_normal((5, 3)), "b": np.zeros(3)}
    small = {key: value.copy() for key, value in large.items()}
    total = GradientMean({key: np.zeros_like(value) for key, value in small.items()})
    one, two = make_optimizer(name, large), make_optimizer(name, small)
    for _ in range(10):
        inputs, targets = rng.standard_normal((12, 5)), rng.standard_normal((12, 3))
        one.step(_gradients(large, inputs, targets))
        for x, y in zip(np.split(inputs, cuts), np.split(targets, cuts), strict=True):
            total.add(_gradients(small, x, y), weight=len(x))
        two.step(total.take())
        for key, value in large.items():
            np.testing.assert_allclose(small[key], value, rtol=1e-9, atol=1e-11)


def test_across_blocks(table):
    shapes = {"w": (BLOCK + 5,), "b": (2,)}
    parts = [table(shapes, seed=seed) for seed in range(3)]
    total = GradientMean(table(shapes, seed=9))  # what was there before does not matter
    for weight, part in zip((1, 2, 5), parts, strict=True):
        total.add(part, weight=weight)
    mean = total.take()
    for name in shapes:
        expected = (parts[0][name] + 2 * parts[1][name] + 5 * parts[2][name]) / 8
        np.testing.assert_allclose(mean[name], expected, rtol=1e-12, atol=1e-14)


def test_refusals():
    total = GradientMean({"w": np.zeros(2)})
    with pytest.raises(StateError, match="no gradient was added"):
        total.take()
    with pytest.raises(StateError, match="do not fit"):
        total.add({"v": np.zeros(2)})
    with pytest.raises(HyperparameterError, match="weight is -1"):
        total.add({"w": np.zeros(2)}, weight=-1)
