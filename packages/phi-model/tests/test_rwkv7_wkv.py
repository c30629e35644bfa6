"""The recurrence: its loop by finite differences, its chunks against the loop, any length."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from phi_model.rwkv7.unit_lower_inverse import unit_lower_inverse
from phi_model.rwkv7.wkv_chunked import WKV, chunk_size
from phi_model.rwkv7.wkv_loop import wkv_loop, wkv_loop_backward

Array = NDArray[Any]

NAMES = ("r", "log_w", "k", "v", "q", "b")
SHAPES = [
    (1, 1, 1, 1),
    (2, 5, 2, 3),
    (1, 16, 2, 32),
    (2, 33, 1, 8),
    (3, 50, 2, 4),
    (1, 70, 1, 64),
    (2, 209, 1, 4),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def inputs(
    shape: tuple[int, ...], *, seed: int = 0, dtype: type = np.float64
) -> tuple[list[Array], Array, Array]:
    """r, log_w, k, v, q, b [B, T, H, D] as RWKV-7 makes them, a state, a gradient of y."""
    batch, _, n_head, size = shape
    rng = np.random.default_rng(seed)
    r, k, v, dy = rng.standard_normal((4, *shape))
    log_w = -np.exp(-0.5) / (1 + np.exp(-3 * rng.standard_normal(shape)))
    kappa = rng.standard_normal(shape)
    kappa /= np.linalg.norm(kappa, axis=-1, keepdims=True)
    b = -kappa * rng.uniform(0, 1, shape)
    state = rng.standard_normal((batch, n_head, size, size))
    arrays = [part.astype(dtype) for part in (r, log_w, k, v, kappa, b)]
    return arrays, state.astype(dtype), dy.astype(dtype)


def chunked(
    arrays: list[Array], state: Array, dy: Array, reset: Array | None = None
) -> tuple[Array, Array, list[Array]]:
    """y, the last state and the gradients of the six inputs, [B, T, H, D]."""
    batch, length, n_head, size = dy.shape
    wkv = WKV(batch, length, n_head, size, dtype=dy.dtype)
    for name, value in zip(NAMES, arrays, strict=True):
        getattr(wkv, name)[...] = value.reshape(batch, length, -1)
    wkv.states[0] = state
    y = wkv.forward(reset).reshape(dy.shape).copy()
    wkv.dy[...] = dy.reshape(batch, length, -1)
    wkv.backward()
    return y, wkv.states[-1], [getattr(wkv, f"d{name}").reshape(dy.shape) for name in NAMES]


def relative(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


def test_the_loop_is_the_formula() -> None:
    """S_t = S (diag(w) + q b^T) + v k^T as whole matrices, one head at a time."""
    arrays, state, _ = inputs((2, 4, 3, 5))
    y, states = wkv_loop(*arrays, state)
    for row in range(2):
        for head in range(3):
            s = state[row, head]
            for t in range(4):
                r, log_w, k, v, q, b = (part[row, t, head] for part in arrays)
                s = s @ (np.diag(np.exp(log_w)) + np.outer(q, b)) + np.outer(v, k)
                np.testing.assert_allclose(y[row, t, head], s @ r, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(states[-1, row, head], s, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("which", range(6), ids=NAMES)
def test_the_loops_gradients_by_finite_differences(which: int) -> None:
    arrays, state, dy = inputs((2, 6, 2, 3), seed=1)
    gradients = wkv_loop_backward(dy, *arrays, wkv_loop(*arrays, state)[1])
    start, rng = arrays[which].copy(), np.random.default_rng(2)
    for _ in range(4):
        direction = rng.standard_normal(start.shape)
        samples = []
        for multiple in (-2, -1, 1, 2):
            arrays[which] = start + multiple * 1e-3 * direction
            samples.append(float((wkv_loop(*arrays, state)[0] * dy).sum()))
        slope = (samples[0] - 8 * samples[1] + 8 * samples[2] - samples[3]) / 12e-3
        assert slope == pytest.approx(float((gradients[which] * direction).sum()), rel=1e-8)


@shapes
def test_chunks_equal_the_loop_in_float64(shape: tuple[int, ...]) -> None:
    arrays, state, dy = inputs(shape)
    y, states = wkv_loop(*arrays, state)
    expected = wkv_loop_backward(dy, *arrays, states)
    found_y, last, found = chunked(arrays, state, dy)
    assert relative(found_y, y) < 1e-12
    assert relative(last, states[-1]) < 1e-12
    for name, ours, theirs in zip(NAMES, found, expected, strict=True):
        assert relative(ours, theirs) < 1e-10, name


@shapes
def test_chunks_equal_the_loop_within_the_rounding_of_float32(shape: tuple[int, ...]) -> None:
    arrays, state, dy = inputs(shape)
    y, states = wkv_loop(*arrays, state)
    expected = wkv_loop_backward(dy, *arrays, states)
    arrays, state, dy = inputs(shape, dtype=np.float32)
    found_y, last, found = chunked(arrays, state, dy)
    assert found_y.dtype == last.dtype == found[0].dtype == np.float32
    for ours, theirs in zip([found_y, last, *found], [y, states[-1], *expected], strict=True):
        assert relative(ours, theirs) < 2e-5


@pytest.mark.parametrize("decay", [0.0, -np.exp(-0.5)], ids=["no decay", "the fastest decay"])
@pytest.mark.parametrize("size", [32, 64])
def test_extreme_decays_and_equal_keys_lose_no_digits(decay: float, size: int) -> None:
    """With equal kappas and a = 1 the powers of A grow to thousands; their sum stays small."""
    shape = (1, 64, 1, size)
    arrays, state, dy = inputs(shape)
    arrays[1][...] = decay
    arrays[4][...] = arrays[4][:, :1]
    arrays[5][...] = -arrays[4]
    y, states = wkv_loop(*arrays, state)
    expected = wkv_loop_backward(dy, *arrays, states)
    single = [part.astype(np.float32) for part in arrays]
    found_y, _, found = chunked(single, state.astype(np.float32), dy.astype(np.float32))
    for ours, theirs in zip([found_y, *found], [y, *expected], strict=True):
        assert relative(ours, theirs) < 1e-4


@pytest.mark.parametrize(
    "shape", [(2, 40, 2, 4), (3, 16, 1, 8), (1, 70, 1, 64), (2, 209, 1, 4)], ids=str
)
def test_a_reset_starts_afresh_wherever_it_falls(shape: tuple[int, ...]) -> None:
    """Each document by itself through the loop; borders at chunk borders and inside, in a row."""
    batch, length, _, size = shape
    c = chunk_size(size)
    arrays, state, dy = inputs(shape)
    reset = np.random.default_rng(5).random((batch, length)) < 0.1
    reset[0, [0, c - 1, length - 1]] = True
    if length > c:
        reset[0, [c, c + 1]] = True
    found_y, last, found = chunked(arrays, state, dy, reset)
    for row in range(batch):
        starts = [0, *(int(t) for t in np.flatnonzero(reset[row]) if t), length]
        for first, end in pairwise(starts):
            at = slice(row, row + 1), slice(first, end)
            part = [array[at] for array in arrays]
            start = state[row : row + 1] * (not reset[row, first])
            y, states = wkv_loop(*part, start)
            np.testing.assert_allclose(found_y[at], y, rtol=1e-9, atol=1e-10)
            expected = wkv_loop_backward(dy[at], *part, states)
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_allclose(ours[at], theirs, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(last[row], states[-1, 0], rtol=1e-9, atol=1e-10)


def test_no_borders_are_as_none() -> None:
    arrays, state, dy = inputs((2, 20, 1, 4))
    without = chunked(arrays, state, dy)
    empty = chunked(arrays, state, dy, np.zeros((2, 20), bool))
    np.testing.assert_array_equal(without[0], empty[0])


@pytest.mark.parametrize("size", [8, 16, 32])
def test_the_inverse_is_one(size: int) -> None:
    a = np.tril(np.random.default_rng(0).standard_normal((3, 2, size, size)), -1)
    out = np.empty_like(a)
    unit_lower_inverse(a, out=out)
    expected = np.linalg.inv(np.eye(size) - a)
    assert relative(out, expected) < 1e-10
