"""A product is the same however its matrix lies."""

from __future__ import annotations

import numpy as np
import pytest

from phi_infer.matrices import LARGE, MatrixTable, fill, lies_by_rows, multiplier, product

SHAPES = [(7, 5), (5, 7), (300, 300), (300, 900), (900, 300)]
OTHERS = [(3, 3), (LARGE // 16, 16)]  # beside which the table is small, or large


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_product_is_that_of_float64(shape, other):
    rng = np.random.default_rng(0)
    x, gain = rng.standard_normal((2, shape[0]), dtype=np.float32)
    matrix = rng.standard_normal(shape[::-1], dtype=np.float32)
    table = MatrixTable({"other": other, "m": shape})
    fill(table["m"], matrix, gain)
    assert table["m"].shape == shape
    np.testing.assert_array_equal(table["m"], (matrix * gain).T)
    assert not table["other"].any()
    multiply, out = multiplier(x, table["m"]), np.empty(shape[1], np.float32)
    expected = (matrix * gain).astype(np.float64) @ x
    found = multiply(table["m"])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    multiply(table["m"], out)
    np.testing.assert_array_equal(out, found)
    x[...] = 0
    assert not multiply(table["m"]).any()  # what x holds now


def test_long_rows_lie_in_a_row_where_the_table_is_large():
    for other, is_large in zip(OTHERS, [False, True], strict=True):
        for shape in SHAPES:
            table = MatrixTable({"other": other, "m": shape})
            assert lies_by_rows(table["m"]) == (is_large and shape[0] >= 300)


def test_a_part_of_a_matrix_is_filled_in_place():
    for shape in ((300, 300), (8, 300)):
        table = MatrixTable({"m": shape})
        matrix = np.arange(100 * shape[0], dtype=np.float32).reshape(100, shape[0])
        fill(table["m"][:, 50:150], matrix)
        np.testing.assert_array_equal(table["m"][:, 50:150], matrix.T)
        assert not table["m"][:, :50].any()
        assert not table["m"][:, 150:].any()


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [1, 2, 16, 32, 33])
def test_a_product_by_tiles_is_that_of_the_whole(shape, other, n):
    rng = np.random.default_rng(1)
    table = MatrixTable({"other": other, "m": shape})
    fill(table["m"], rng.standard_normal(shape[::-1], dtype=np.float32))
    wide = rng.standard_normal((n, shape[0] + 1), dtype=np.float32)
    x = wide[:, :-1]  # a view, as a pass has it
    expected = x.astype(np.float64) @ table["m"]
    found = product(x, table["m"])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    out = np.full((n, shape[1]), np.nan, np.float32)
    assert product(x, table["m"], out) is out
    np.testing.assert_array_equal(out, found)
