"""Each operation's backward against finite differences of its forward, in float64.

The functions below called `*_op` put every operation into one form: they map a dict of inputs to
the output y and a function dy -> gradients by name. They are all that has to change when an
operation's calling convention does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from phi_model import reference
from phi_model.attention import BLOCK, attention, attention_backward, blocks
from phi_model.cross_entropy import cross_entropy, cross_entropy_backward
from phi_model.embedding import embed, embed_backward
from phi_model.norm import rmsnorm, rmsnorm_backward
from phi_model.qk_norm import qk_norm, qk_norm_backward
from phi_model.rope import RopeTables, rope_angles, rotate
from phi_model.swiglu import swiglu, swiglu_backward, swiglu_scratch

Array = NDArray[Any]
Inputs = dict[str, Array]
Op = Callable[[Inputs], tuple[Array, Callable[[Array], Inputs]]]

TOLERANCE = 1e-7
LN2 = np.log(2.0)
EPS = 1e-5

few = settings(max_examples=25, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)


# --- the operations in one form -----------------------------------------------------------------


def rmsnorm_op(inputs: Inputs) -> tuple[Array, Callable[[Array], Inputs]]:
    x, gain = inputs["x"], inputs["gain"]
    y, rrms = np.empty_like(x), np.empty_like(x[0])
    rmsnorm(x, gain, EPS, y=y, rrms=rrms)

    def backward(dy: Array) -> Inputs:
        dx, dgain = np.zeros_like(x), np.full_like(gain, np.nan)
        scratch = np.full_like(x, np.nan)
        rmsnorm_backward(dy.copy(), x, gain, rrms, dx=dx, dgain=dgain, scratch=scratch)
        return {"x": dx, "gain": dgain}

    return y, backward


def qk_norm_op(inputs: Inputs) -> tuple[Array, Callable[[Array], Inputs]]:
    """x [H, D, N], gain [D]."""
    y, gain = inputs["x"].copy(), inputs["gain"]
    normed, rrms = np.full_like(y, np.nan), np.full_like(y[:, :1], np.nan)
    qk_norm(y, gain, EPS, normed=normed, rrms=rrms)

    def backward(dy: Array) -> Inputs:
        dx, dgain, scratch = dy.copy(), np.full_like(gain, np.nan), np.full_like(dy, np.nan)
        qk_norm_backward(dx, gain, normed=normed, rrms=rrms, dgain=dgain, scratch=scratch)
        return {"x": dx, "gain": dgain}

    return y, backward


def rotate_op(inputs: Inputs) -> tuple[Array, Callable[[Array], Inputs]]:
    """Queries and keys [G + 1, K, 2, D/2, B, T]; the way back carries the ln(2) of attention's
    exp2."""
    qk = inputs["qk"]
    n_kinds, n_head, _, half, n_batch, n_positions = qk.shape
    flat = (n_kinds, n_head, 2, half, n_batch * n_positions)
    tables = RopeTables(
        n_batch, n_positions, 2 * half, 10_000.0, n_group=n_kinds - 1, dtype=qk.dtype
    )
    scratch = np.full(flat, np.nan)
    y = qk.copy()
    rotate(y.reshape(flat), tables.cos, tables.sin, scratch=scratch)

    def backward(dy: Array) -> Inputs:
        dqk = dy.copy()
        rotate(dqk.reshape(flat), tables.back_cos, tables.back_sin, scratch=scratch)
        return {"qk": dqk / LN2}

    return y, backward


def attention_op(inputs: Inputs) -> tuple[Array, Callable[[Array], Inputs]]:
    """q [B, H, D, T], k and v [B, K, D, T], scores in units of log2; backward leaves the ln(2)
    to the caller."""
    n_batch, n_head, d, n_positions = inputs["q"].shape
    n_kv_head = inputs["k"].shape[1]
    heads = (n_batch, n_kv_head, n_head // n_kv_head)
    q = inputs["q"].reshape(*heads, d, n_positions)
    k, v = inputs["k"][:, :, None], inputs["v"][:, :, None]
    shapes = [(*heads, end, end - first) for first, end in blocks(n_positions)]
    weights = [np.full(shape, np.nan, q.dtype) for shape in shapes]
    inverse_sum = np.full((*heads, 1, n_positions), np.nan, q.dtype)
    out = np.full_like(q, np.nan)
    attention(q, k, v, weights=weights, inverse_sum=inverse_sum, out=out)

    def backward(dout: Array) -> Inputs:
        grads = {f"d{name}": np.full_like(a, np.nan) for name, a in (("q", q), ("k", k), ("v", v))}
        attention_backward(
            dout.reshape(q.shape).copy(),
            q,
            k,
            v,
            out=out,
            weights=weights,
            inverse_sum=inverse_sum,
            **grads,
            scratch=np.full_like(q, np.nan),
            dscores=[np.full(shape, np.nan, q.dtype) for shape in shapes],
        )
        grads = {name: grads[f"d{name}"].reshape(value.shape) for name, value in inputs.items()}
        return {"q": grads["q"] * LN2, "k": grads["k"] * LN2, "v": grads["v"]}

    return out.reshape(inputs["q"].shape), backward


def swiglu_op(inputs: Inputs) -> tuple[Array, Callable[[Array], Inputs]]:
    gate, up = inputs["gate"], inputs["up"]
    gate_factor, up_factor, y = gate.copy(), up.copy(), np.full_like(gate, np.nan)
    scratch = np.full(swiglu_scratch(*gate.shape), np.nan, gate.dtype)
    swiglu(gate_factor, up_factor, y=y, scratch=scratch)

    def backward(dy: Array) -> Inputs:
        dgate, dup = gate_factor.copy(), up_factor.copy()
        swiglu_backward(dy, dgate, dup)
        return {"gate": dgate, "up": dup}

    return y, backward


def embed_op(ids: Array) -> Op:
    def op(inputs: Inputs) -> tuple[Array, Callable[[Array], Inputs]]:
        weight = inputs["weight"]
        x = np.full((weight.shape[1], ids.size), np.nan)
        embed(ids, weight, x=x)

        def backward(dx: Array) -> Inputs:
            dweight = np.zeros_like(weight)
            embed_backward(dx.copy(), ids, dweight=dweight)
            return {"weight": dweight}

        return x, backward

    return op


def cross_entropy_op(targets: Array) -> Op:
    """Losses [N] of the head weight [V, C] on h [C, N]; token weights are the gradient dlosses."""

    def op(inputs: Inputs) -> tuple[Array, Callable[[Array], Inputs]]:
        h, weight = inputs["h"], inputs["weight"]
        logits = weight @ h
        total = np.full_like(h[0], np.nan)
        losses = cross_entropy(logits, targets, total=total)

        def backward(dlosses: Array) -> Inputs:
            dh, dweight = np.full_like(h, np.nan), np.full_like(weight, np.nan)
            cross_entropy_backward(
                logits.copy(),
                total.copy(),
                targets,
                dlosses,
                h.copy(),
                weight,
                dh=dh,
                dweight=dweight,
            )
            return {"h": dh, "weight": dweight}

        return losses, backward

    return op


# --- the check ----------------------------------------------------------------------------------


def five_points(f: Callable[[float], float], step: float) -> float:
    """f'(0) with an error of the order of step^4."""
    return (f(-2 * step) - 8 * f(-step) + 8 * f(step) - f(2 * step)) / (12 * step)


def assert_gradients(op: Op, inputs: Inputs, rng: np.random.Generator) -> None:
    """Slopes of sum(y * dy) along random directions and along single elements of every input."""
    before = {name: value.copy() for name, value in inputs.items()}
    y, backward = op(inputs)
    dy = rng.standard_normal(y.shape)
    y = y.copy()
    gradients = backward(dy)
    assert gradients.keys() == inputs.keys()
    for name, value in inputs.items():
        np.testing.assert_array_equal(value, before[name], err_msg=f"{name} was changed")
        gradient = gradients[name]
        assert gradient.shape == value.shape
        size = np.linalg.norm(gradient) / np.sqrt(gradient.size)
        noise = 1e-4 * np.linalg.norm(dy)  # a slope that is 0 by nature has no size of its own
        for direction in _directions(value, rng):

            def along(t: float, name=name, value=value, direction=direction) -> float:
                moved, _ = op(inputs | {name: value + t * direction})
                return float(((moved - y) * dy).sum())

            analytic = float((gradient * direction).sum())
            error = abs(five_points(along, 1e-3) - analytic) / max(abs(analytic), size, noise)
            assert error < TOLERANCE, f"d{name}: relative error {error:.1e}"


def _directions(value: Array, rng: np.random.Generator) -> list[Array]:
    directions = [rng.standard_normal(value.shape) for _ in range(2)]
    directions = [direction / np.linalg.norm(direction) for direction in directions]
    for pick in rng.choice(value.size, min(value.size, 6), replace=False):
        single = np.zeros(value.size)
        single[pick] = 1
        directions.append(single.reshape(value.shape))
    return directions


def normal(rng: np.random.Generator, **shapes: tuple[int, ...]) -> Inputs:
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


# --- RMSNorm ------------------------------------------------------------------------------------


@few
@given(
    c=st.integers(1, 17), n=st.integers(1, 13), scale=st.sampled_from([0.5, 1.0, 30]), seed=seeds
)
def test_rmsnorm(c: int, n: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = normal(rng, x=(c, n), gain=(c,))
    inputs["x"] = (inputs["x"] + np.sign(inputs["x"])) * scale  # a norm near 0 bends too sharply
    assert_gradients(rmsnorm_op, inputs, rng)


def test_rmsnorm_backward_adds_to_dx_and_overwrites_dgain() -> None:
    rng = np.random.default_rng(0)
    inputs = normal(rng, x=(5, 4), gain=(5,), dy=(5, 4), dx=(5, 4))
    x, gain = inputs["x"], inputs["gain"]
    _, backward = rmsnorm_op({"x": x, "gain": gain})
    fresh = backward(inputs["dy"])
    dx, dgain, rrms = inputs["dx"].copy(), np.full(5, 99.0), (x * x).mean(axis=0) + EPS
    rmsnorm_backward(
        inputs["dy"].copy(), x, gain, rrms**-0.5, dx=dx, dgain=dgain, scratch=np.empty_like(x)
    )
    np.testing.assert_allclose(dx, inputs["dx"] + fresh["x"], rtol=1e-12)
    np.testing.assert_allclose(dgain, fresh["gain"], rtol=1e-12)


def test_rmsnorm_of_a_zero_vector_is_zero_and_its_gradient_finite() -> None:
    y, backward = rmsnorm_op({"x": np.zeros((4, 2)), "gain": np.ones(4)})
    gradients = backward(np.ones((4, 2)))
    assert not y.any()
    np.testing.assert_allclose(gradients["x"], EPS**-0.5)


# --- QK-norm ------------------------------------------------------------------------------------


@few
@given(
    h=st.integers(1, 4),
    d=st.integers(1, 9),
    n=st.integers(1, 13),
    scale=st.sampled_from([0.5, 1.0, 30]),
    seed=seeds,
)
def test_qk_norm(h: int, d: int, n: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = normal(rng, x=(h, d, n), gain=(d,))
    inputs["x"] = (inputs["x"] + np.sign(inputs["x"])) * scale  # a norm near 0 bends too sharply
    y, _ = qk_norm_op(inputs)
    plain, _ = reference.rmsnorm(inputs["x"].swapaxes(1, 2), inputs["gain"], EPS)
    np.testing.assert_allclose(y, plain.swapaxes(1, 2), rtol=1e-12)
    assert_gradients(qk_norm_op, inputs, rng)


# --- RoPE ---------------------------------------------------------------------------------------


@few
@given(
    group=st.integers(1, 3),
    h=st.integers(1, 3),
    half=st.integers(1, 5),
    b=st.integers(1, 3),
    t=st.sampled_from([1, 2, 7, BLOCK + 1]),
    seed=seeds,
)
def test_rotate(group: int, h: int, half: int, b: int, t: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert_gradients(rotate_op, normal(rng, qk=(group + 1, h, 2, half, b, t)), rng)


def test_rotate_turns_by_the_position_times_the_frequency() -> None:
    """Each channel pair as one complex number."""
    rng = np.random.default_rng(0)
    qk = rng.standard_normal((2, 3, 2, 4, 2, 9))
    y, _ = rotate_op({"qk": qk})
    turn = np.exp(1j * rope_angles(9, 8, 10_000.0))[:, None, :]
    turned = (qk[:, :, 0] + 1j * qk[:, :, 1]) * turn
    factors = np.array([1 / (np.sqrt(8) * LN2), 1])[:, None, None, None, None]
    np.testing.assert_allclose(y[:, :, 0], factors * turned.real, atol=1e-13)
    np.testing.assert_allclose(y[:, :, 1], factors * turned.imag, atol=1e-13)


def test_scaling_puts_more_positions_into_the_angles_of_few() -> None:
    few_angles, many = rope_angles(5, 8, 100.0), rope_angles(17, 8, 100.0, 4.0)
    np.testing.assert_allclose(many[:, ::4], few_angles, rtol=1e-15)
    scaled = RopeTables(2, 17, 8, 100.0, scaling=4.0, dtype=np.float64)
    plain = RopeTables(2, 5, 8, 100.0, dtype=np.float64)
    for name in ("cos", "sin", "back_cos", "back_sin"):
        every_fourth = getattr(scaled, name).reshape(2, -1, 2, 17)[..., ::4]
        np.testing.assert_allclose(every_fourth, getattr(plain, name).reshape(2, -1, 2, 5))


def test_scores_after_rotation_depend_on_distance_only() -> None:
    qk = np.zeros((2, 1, 2, 3, 1, 8))
    qk[:] = np.random.default_rng(0).standard_normal((2, 1, 2, 3, 1, 1))  # equal at every position
    y, _ = rotate_op({"qk": qk})
    q, k = y.reshape(2, 6, 8)
    scores = q.T @ k
    for distance in range(8):
        np.testing.assert_allclose(np.diag(scores, distance), scores[0, distance], atol=1e-12)


# --- attention ----------------------------------------------------------------------------------


def plain_attention(q: Array, k: Array, v: Array) -> Array:
    """The reference's attention on [B, H, D, T] with scores in units of log2."""
    q, k, v = (a.swapaxes(-1, -2) for a in (q * LN2 * np.sqrt(q.shape[-2]), k, v))
    k, v = (reference.share_heads(a, q.shape[1] // a.shape[1])[0] for a in (k, v))
    y, _ = reference.attend(q, k, v)
    return y.swapaxes(-1, -2)


def qkv(rng: np.random.Generator, shape: tuple[int, ...]) -> Inputs:
    return normal(rng, q=shape, k=shape, v=shape)


@few
@given(
    b=st.integers(1, 3), h=st.integers(1, 3), d=st.integers(1, 6), t=st.integers(1, 12), seed=seeds
)
def test_attention(b: int, h: int, d: int, t: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = qkv(rng, (b, h, d, t))
    np.testing.assert_allclose(attention_op(inputs)[0], plain_attention(**inputs), atol=1e-13)
    assert_gradients(attention_op, inputs, rng)


@few
@given(
    b=st.integers(1, 2),
    n_kv_head=st.integers(1, 3),
    n_group=st.integers(1, 4),
    d=st.integers(1, 4),
    t=st.sampled_from([1, 2, 9, BLOCK + 3, 2 * BLOCK + 1]),
    seed=seeds,
)
def test_attention_with_shared_keys_and_values(
    b: int, n_kv_head: int, n_group: int, d: int, t: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shared = (b, n_kv_head, d, t)
    inputs = normal(rng, q=(b, n_kv_head * n_group, d, t), k=shared, v=shared)
    np.testing.assert_allclose(attention_op(inputs)[0], plain_attention(**inputs), atol=1e-13)
    assert_gradients(attention_op, inputs, rng)


@pytest.mark.parametrize("t", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 3])
@pytest.mark.parametrize(("b", "h", "d"), [(1, 1, 2), (2, 3, 5)])
def test_attention_over_block_borders(b: int, h: int, d: int, t: int) -> None:
    rng = np.random.default_rng(t)
    inputs = qkv(rng, (b, h, d, t))
    np.testing.assert_allclose(attention_op(inputs)[0], plain_attention(**inputs), atol=1e-13)
    assert_gradients(attention_op, inputs, rng)


def test_one_position_attends_to_itself() -> None:
    inputs = qkv(np.random.default_rng(0), (2, 2, 3, 1))
    out, backward = attention_op(inputs)
    np.testing.assert_allclose(out, inputs["v"])
    gradients = backward(np.ones_like(out))
    np.testing.assert_allclose(gradients["v"], 1)
    np.testing.assert_allclose(gradients["q"], 0, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("q_size", "k_size"),
    [(60, 60), (-60, 60), (1e3, 1e3), (-1e3, 1e3), (1e-4, 1e-4)],
    ids=["high", "low", "far above", "far below", "flat"],
)
def test_attention_with_scores_beyond_the_range_of_exp2(
    dtype: type, q_size: float, k_size: float
) -> None:
    """Scores of thousands either way: no overflow, no 0 / 0, the same answer."""
    rng = np.random.default_rng(0)
    shape = (1, 2, 3, BLOCK + 5)
    inputs = qkv(rng, shape)
    inputs["q"] = q_size * (1 + 0.01 * inputs["q"])
    inputs["k"] = k_size * (1 + 0.01 * inputs["k"])
    inputs = {name: value.astype(np.float32).astype(dtype) for name, value in inputs.items()}
    out, backward = attention_op(inputs)
    dout = rng.standard_normal(shape)
    gradients = backward(dout.astype(dtype))
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    if dtype == np.float64 or abs(q_size * k_size) < 1e5:  # float32 scores of 1e6 have no fraction
        expected = plain_attention(**{n: a.astype(np.float64) for n, a in inputs.items()})
        np.testing.assert_allclose(out, expected, atol=1e-9 if dtype == np.float64 else 2e-2)


def test_extreme_scores_in_one_head_leave_the_others_exact() -> None:
    rng = np.random.default_rng(0)
    inputs = qkv(rng, (2, 3, 4, 9))
    inputs["q"][1, 2] *= 1e4
    np.testing.assert_allclose(attention_op(inputs)[0], plain_attention(**inputs), atol=1e-12)
    inputs["q"][1, 2] *= 1e-4
    extreme = {name: value.copy() for name, value in inputs.items()}
    extreme["q"][0] = 1e4 * np.abs(extreme["q"][0])
    extreme["k"][0] = np.abs(extreme["k"][0])
    dout = rng.standard_normal((2, 3, 4, 9))
    (_, plain), (_, beside) = attention_op(inputs), attention_op(extreme)
    for name, gradient in plain(dout).items():
        np.testing.assert_allclose(beside(dout)[name][1], gradient[1], atol=1e-12)


# --- SwiGLU -------------------------------------------------------------------------------------


@few
@given(
    f=st.integers(1, 19), n=st.integers(1, 11), scale=st.sampled_from([0.1, 1.0, 4.0]), seed=seeds
)
def test_swiglu(f: int, n: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = normal(rng, gate=(f, n), up=(f, n))
    inputs["gate"] *= scale
    assert_gradients(swiglu_op, inputs, rng)


def test_swiglu_over_several_blocks_of_rows() -> None:
    rng = np.random.default_rng(0)
    inputs = normal(rng, gate=(37, 1500), up=(37, 1500))
    gate, up = inputs["gate"], inputs["up"]
    y, _ = swiglu_op(inputs)
    np.testing.assert_allclose(y, gate / (1 + np.exp(-gate)) * up, rtol=1e-11, atol=1e-14)
    assert_gradients(swiglu_op, inputs, rng)


def test_swiglu_is_finite_for_gates_of_any_size() -> None:
    gate = np.array([[-1e30, -1e4, -100, 0, 100, 1e4, 1e30]], dtype=np.float32)
    y, backward = swiglu_op({"gate": gate, "up": np.ones_like(gate)})
    np.testing.assert_array_equal(y, np.maximum(gate, 0))
    gradients = backward(np.ones_like(gate))
    np.testing.assert_array_equal(gradients["gate"], [[0, 0, 0, 0.5, 1, 1, 1]])


# --- embedding ----------------------------------------------------------------------------------


@few
@given(v=st.integers(1, 12), c=st.integers(1, 5), n=st.integers(1, 30), seed=seeds)
def test_embed(v: int, c: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, v, n)
    op = embed_op(ids)
    inputs = normal(rng, weight=(v, c))
    np.testing.assert_array_equal(op(inputs)[0], inputs["weight"][ids].T)
    assert_gradients(op, inputs, rng)


def test_embed_backward_adds_to_what_is_there() -> None:
    rng = np.random.default_rng(0)
    ids = np.array([3, 0, 3, 3, 1])
    dx, before = rng.standard_normal((2, 5)), rng.standard_normal((4, 2))
    dweight, expected = before.copy(), before.copy()
    embed_backward(dx, ids, dweight=dweight)
    np.add.at(expected, ids, dx.T)
    np.testing.assert_allclose(dweight, expected, rtol=1e-13)
    np.testing.assert_array_equal(dweight[2], before[2])  # an id that does not occur


# --- head and cross-entropy ---------------------------------------------------------------------


@few
@given(
    v=st.integers(2, 15),
    c=st.integers(1, 6),
    n=st.integers(1, 9),
    scale=st.sampled_from([0.3, 1.0, 3.0]),
    seed=seeds,
)
def test_cross_entropy(v: int, c: int, n: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = normal(rng, h=(c, n), weight=(v, c))
    inputs["weight"] *= scale
    assert_gradients(cross_entropy_op(rng.integers(0, v, n)), inputs, rng)


@pytest.mark.parametrize("shift", [-1e4, -100, 0, 100, 1e4])
def test_cross_entropy_does_not_see_a_shift_of_all_logits(shift: float) -> None:
    rng = np.random.default_rng(0)
    logits, targets = 3 * rng.standard_normal((11, 7)), rng.integers(0, 11, 7)
    plain, _ = reference.cross_entropy(logits.T, targets)
    losses = cross_entropy(logits + shift, targets, total=np.empty(7))
    np.testing.assert_allclose(losses, plain, atol=1e-11)


def test_cross_entropy_with_huge_logits() -> None:
    """Past exp's range the shift by the maximum takes over, forward and backward."""
    rng = np.random.default_rng(0)
    inputs = normal(rng, h=(3, 8), weight=(9, 3))
    inputs["weight"] *= 500
    targets = rng.integers(0, 9, 8)
    losses, backward = cross_entropy_op(targets)(inputs)
    logits = (inputs["weight"] @ inputs["h"]).T
    plain, kept = reference.cross_entropy(logits, targets)
    np.testing.assert_allclose(losses, plain, rtol=1e-12, atol=1e-9)
    factors = rng.standard_normal(8)
    dlogits = reference.cross_entropy_backward(factors, kept)
    gradients = backward(factors)
    np.testing.assert_allclose(gradients["h"], (dlogits @ inputs["weight"]).T, atol=1e-9)
    np.testing.assert_allclose(gradients["weight"], dlogits.T @ inputs["h"].T, atol=1e-9)


def test_a_token_of_weight_zero_has_no_gradient() -> None:
    rng = np.random.default_rng(0)
    inputs = normal(rng, h=(3, 4), weight=(6, 3))
    _, backward = cross_entropy_op(rng.integers(0, 6, 4))(inputs)
    gradients = backward(np.array([1.0, 0.0, -2.0, 0.0]))
    assert not gradients["h"][:, [1, 3]].any()
    assert gradients["h"][:, [0, 2]].all()
