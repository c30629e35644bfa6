"""The global norm against numpy in float64, also where float32's squares over- or underflow."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi_optim import HyperparameterError, NotFiniteError, clip_grad_norm, clip_scale, grad_norm
from phi_optim.clipping import SUMMED


def _norm(gradients):
    everything = np.concatenate([np.asarray(g, np.float64).ravel() for g in gradients.values()])
    return float(np.linalg.norm(everything))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, SUMMED - 1, SUMMED, SUMMED + 1, 3 * SUMMED + 7])
def test_norm_equals_numpy(dtype, size):
    rng = np.random.default_rng(size)
    gradients = {"a": rng.standard_normal(size).astype(dtype), "b": np.full((2, 3), 2, dtype)}
    assert grad_norm(gradients) == pytest.approx(_norm(gradients), rel=1e-6)


def test_norm_of_a_flat_table(table, shapes):
    gradients = table(shapes, seed=1)
    assert grad_norm(gradients) == pytest.approx(_norm(gradients), rel=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("factor", [1e-44, 1e-30, 1e-20, 1e-12, 1e12, 1e20, 1e30, 1e38])
def test_norm_of_huge_and_tiny_values(dtype, factor):
    gradients = {
        "a": np.array([3 * factor, 0.5 * factor], dtype),
        "b": np.array([[-2 * factor]], dtype),
    }
    assert grad_norm(gradients) == pytest.approx(_norm(gradients), rel=1e-6)


@pytest.mark.parametrize("factor", [1e-300, 1e-200, 1e200, 1e300])
def test_norm_beyond_float64s_squares(factor):
    assert grad_norm({"a": np.full(4, factor)}) == pytest.approx(2 * factor, rel=1e-12)


def test_norm_of_nothing_is_zero():
    assert grad_norm({}) == 0
    assert grad_norm({"a": np.zeros((0, 3), np.float32), "b": np.zeros(4)}) == 0


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50),
    st.floats(1e-3, 1e3),
)
def test_clipping_keeps_the_direction_and_bounds_the_norm(numbers, max_norm):
    gradients = {"a": np.array(numbers, np.float64), "b": np.ones((2, 2))}
    before = {name: g.copy() for name, g in gradients.items()}
    norm = clip_grad_norm(gradients, max_norm)
    assert norm == pytest.approx(_norm(before), rel=1e-12)
    factor = min(1.0, max_norm / norm)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, before[name] * factor, rtol=1e-12)


def test_a_norm_below_the_bound_changes_no_bit():
    gradients = {"a": np.array([0.3, -0.4])}
    assert clip_grad_norm(gradients, 0.5) == 0.5
    assert gradients["a"].tolist() == [0.3, -0.4]


def test_infinity_means_no_clipping():
    gradients = {"a": np.array([3e6, 4e6])}
    assert clip_grad_norm(gradients, math.inf) == 5e6
    assert gradients["a"].tolist() == [3e6, 4e6]
    assert clip_scale(0.0, math.inf) == 1


def test_scale_is_what_stepping_needs():
    assert clip_scale(4.0, 1.0) == 0.25
    assert clip_scale(0.5, 1.0) == 1
    assert clip_scale(0.0, 1.0) == 1
    assert math.isnan(clip_scale(math.nan, 1.0))
    assert math.isnan(clip_scale(math.inf, 1.0))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_array_at_fault_is_named_and_nothing_changes(table, shapes, bad, dtype):
    gradients = table(shapes, dtype, seed=1)
    gradients["layer.weight"][2, 3] = bad
    before = {name: g.copy() for name, g in gradients.items()}
    assert not math.isfinite(grad_norm(gradients))
    with pytest.raises(NotFiniteError, match=r"gradient of layer\.weight holds a NaN or an inf"):
        clip_grad_norm(gradients, 1.0)
    for name, gradient in gradients.items():
        assert np.array_equal(gradient, before[name], equal_nan=True)


def test_a_norm_past_float64_is_an_error_too():
    with pytest.raises(NotFiniteError, match="the norm of the gradients"):
        clip_grad_norm({"a": np.full(4, 1.7e308)}, 1.0)


@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.nan])
def test_max_norm_must_be_positive(max_norm):
    with pytest.raises(HyperparameterError, match=r"max_norm is .*; it must be above 0"):
        clip_grad_norm({"a": np.ones(3)}, max_norm)
