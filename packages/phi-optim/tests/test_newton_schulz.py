"""Orthogonalising by products, against the singular value decomposition and the plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from phi_optim.newton_schulz import NewtonSchulzScratch, newton_schulz_cost, orthogonalise

SHAPES = [(8, 8), (8, 11), (11, 8), (8, 12), (12, 8), (4, 64), (64, 4), (1, 5), (5, 1), (1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 2, 5, 6])
def test_equals_the_plain_loop(slow, shape, steps):
    x = np.random.default_rng(0).standard_normal(shape)
    found = orthogonalise(x.copy(), NewtonSchulzScratch(), factor=-0.3, steps=steps)
    expected = -0.3 * slow.newton_schulz(x, steps=steps)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_near_one_and_the_same_directions(shape):
    x = np.random.default_rng(1).standard_normal(shape)
    u, _, v = np.linalg.svd(x, full_matrices=False)
    inside = u.T @ orthogonalise(x.copy(), NewtonSchulzScratch()) @ v.T
    values = np.diag(inside)
    np.testing.assert_allclose(inside, np.diag(values), atol=1e-12)
    assert values.min() > 0.6
    assert values.max() < 1.3


@pytest.mark.parametrize("shape", [(32, 32), (32, 96), (256, 32)])
def test_float32_on_a_badly_conditioned_matrix(slow, shape):
    """Singular values over six decades: the small ones must not drown in rounding."""
    rng = np.random.default_rng(2)
    u, _, v = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    x = (u * np.logspace(0, -6, min(shape))) @ v
    found = orthogonalise(x.astype(np.float32), NewtonSchulzScratch())
    assert found.dtype == np.float32
    difference = found - slow.newton_schulz(x)
    assert np.linalg.norm(difference) < 1e-3 * np.linalg.norm(found)


def test_zero_stays_zero_and_nothing_is_made_the_second_time():
    scratch = NewtonSchulzScratch()
    for shape in SHAPES:
        assert not orthogonalise(np.zeros(shape, np.float32), scratch).any()
        first = orthogonalise(np.ones(shape, np.float32), scratch)
        arrays = len(scratch._arrays)
        again = orthogonalise(np.ones(shape, np.float32), scratch)
        assert len(scratch._arrays) == arrays
        np.testing.assert_array_equal(first, again)


def test_the_cheaper_way_is_taken():
    assert newton_schulz_cost((128, 128)) == 5 * (4 + 2) * 128**3
    assert newton_schulz_cost((1024, 128)) == newton_schulz_cost((128, 1024))
    assert newton_schulz_cost((128, 1024)) == (4 * 8 + 34) * 128**3
