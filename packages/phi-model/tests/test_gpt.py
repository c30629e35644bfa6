"""The whole model: its gradients, its plain twin, token weights, causality, and its refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from phi_model import (
    GPT,
    RWKV7,
    ConfigError,
    ModelConfig,
    NotFiniteError,
    build_model,
    check_gradients,
)
from phi_model.reference import ReferenceGPT

Array = NDArray[Any]

SHAPES = {
    "one head": {"n_embd": 6, "n_layer": 1, "n_head": 1},
    "three heads of two": {"n_embd": 6, "n_layer": 2, "n_head": 3, "n_hidden": 7},
    "odd sizes": {"n_embd": 10, "n_layer": 3, "n_head": 1, "n_hidden": 5, "vocab_size": 13},
    "other constants": {"n_embd": 4, "n_layer": 1, "n_head": 2, "rope_base": 50.0, "norm_eps": 0.3},
    "two ids": {"n_embd": 4, "n_layer": 1, "n_head": 1, "vocab_size": 2},
    "shared keys": {"n_embd": 12, "n_layer": 2, "n_head": 6, "n_kv_head": 2},
    "one head of keys": {"n_embd": 8, "n_layer": 1, "n_head": 4, "n_kv_head": 1},
    "QK-norm": {"n_embd": 8, "n_layer": 2, "n_head": 2, "qk_norm": True},
    "all of them": {
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 4,
        "n_kv_head": 2,
        "qk_norm": True,
        "rope_scaling": 2.5,
        "n_hidden": 9,
    },
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
heads = pytest.mark.parametrize("tied_head", [True, False], ids=["tied", "untied"])
batches = pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 5), (1, 66), (2, 131)])


def small(**changes: Any) -> ModelConfig:
    return ModelConfig(**{"vocab_size": 11, "seq_len": 16} | changes)


def standard() -> ModelConfig:
    return small(n_embd=8, n_layer=2, n_head=2)


def assert_close_to_largest(found: Array, expected: Array, tolerance: float, name: str) -> None:
    error = np.abs(found.astype(np.float64) - expected).max() / max(np.abs(expected).max(), 1e-30)
    assert error < tolerance, f"{name}: {error:.1e} of the largest element"


# --- gradients by finite differences ------------------------------------------------------------


@shapes
@heads
def test_every_parameter_by_finite_differences(
    shape: dict[str, Any], tied_head: bool, lively_model: Callable[..., GPT], make_batch: Any
) -> None:
    config = small(**shape, tied_head=tied_head)
    ids, targets = make_batch(config, 3, 5)
    rows = check_gradients(lively_model(config), ids=ids, targets=targets, elements=6)
    assert [row.name for row in rows] == list(build_model(config).parameters)
    assert all(row.ok for row in rows), rows


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 67), (2, 2)])
def test_every_parameter_for_batches_of_odd_shapes(
    batch: int, length: int, lively_model: Callable[..., GPT], make_batch: Any
) -> None:
    config = standard()
    ids, targets = make_batch(config, batch, length)
    rows = check_gradients(lively_model(config), ids=ids, targets=targets, elements=4)
    assert all(row.ok for row in rows), rows


@heads
def test_every_parameter_with_token_weights(
    tied_head: bool, lively_model: Callable[..., GPT], make_batch: Any
) -> None:
    config = small(n_embd=8, n_layer=2, n_head=2, tied_head=tied_head)
    ids, targets = make_batch(config, 2, 4)
    weights = [[0, 1, -0.5, 2], [0, 0, 3, 1]]
    model = lively_model(config)
    rows = check_gradients(model, ids=ids, targets=targets, weights=weights, elements=4)
    assert all(row.ok for row in rows), rows


@pytest.mark.parametrize("preset", ["gpt-1k", "gpt-10k"])
def test_every_parameter_of_a_new_model(preset: str) -> None:
    assert all(row.ok for row in check_gradients(GPT(ModelConfig.preset(preset)), elements=2))


def test_the_check_leaves_the_model_alone() -> None:
    model = GPT(standard())
    before = model.parameters.flat.copy()
    check_gradients(model, elements=1)
    np.testing.assert_array_equal(model.parameters.flat, before)
    assert not model.gradients.flat.any()


def test_the_check_names_the_parameter_whose_gradient_is_wrong(
    monkeypatch: pytest.MonkeyPatch, lively_model: Callable[..., GPT]
) -> None:
    sound = GPT.loss_and_grad

    def wrong(self: GPT, *batch: Any) -> float:
        loss = sound(self, *batch)
        self.gradients["layers.1.mlp.down"][...] *= 1 + 1e-6
        return loss

    monkeypatch.setattr(GPT, "loss_and_grad", wrong)
    rows = check_gradients(lively_model(standard()))
    assert [row.name for row in rows if not row.ok] == ["layers.1.mlp.down"]


def test_the_check_is_not_content_with_nan(
    monkeypatch: pytest.MonkeyPatch, lively_model: Callable[..., GPT]
) -> None:
    sound = GPT.loss_and_grad

    def wrong(self: GPT, *batch: Any) -> float:
        loss = sound(self, *batch)
        self.gradients["final_norm.gain"][3] = np.nan
        return loss

    monkeypatch.setattr(GPT, "loss_and_grad", wrong)
    rows = check_gradients(lively_model(standard()))
    assert [row.name for row in rows if not row.ok] == ["final_norm.gain"]


# --- the plain twin -----------------------------------------------------------------------------


@shapes
@heads
@batches
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-12)], ids=["float32", "float64"]
)
def test_loss_and_gradients_equal_the_twin(
    shape: dict[str, Any],
    tied_head: bool,
    batch: int,
    length: int,
    dtype: type,
    tolerance: float,
    lively_model: Callable[..., GPT],
    make_batch: Any,
) -> None:
    config = small(**shape, tied_head=tied_head)
    model = lively_model(config, dtype=dtype)
    twin = ReferenceGPT(config, {n: p.astype(np.float64) for n, p in model.parameters.items()})
    ids, targets = make_batch(config, batch, length)
    weights = np.random.default_rng(1).integers(-1, 3, ids.shape) * 0.7
    for given in (None, weights):
        loss = model.loss_and_grad(ids, targets, given)
        expected, gradients = twin.loss_and_grad(ids, targets, given)
        assert loss == pytest.approx(expected, rel=tolerance, abs=tolerance)
        assert model.gradients.keys() == gradients.keys()
        largest = max(np.abs(gradient).max() for gradient in gradients.values())
        for name, gradient in gradients.items():
            found = model.gradients[name]
            if np.abs(gradient).max() > 1e-6 * largest:
                assert_close_to_largest(found, gradient, tolerance, name)
            else:  # zero by nature: what rounding leaves
                assert np.abs(found - gradient).max() <= tolerance * max(largest, 1e-3)
    np.testing.assert_allclose(model.logits(ids), twin.logits(ids), atol=30 * tolerance)


def test_a_preset_equals_the_twin(make_batch: Any) -> None:
    config = ModelConfig.preset("gpt-100k")
    model = GPT(config, seed=3)
    ids, targets = make_batch(config, 2, 96)
    loss = model.loss_and_grad(ids, targets)
    values = {name: value.astype(np.float64) for name, value in model.parameters.items()}
    expected, gradients = ReferenceGPT(config, values).loss_and_grad(ids, targets)
    assert loss == pytest.approx(expected, rel=1e-6)
    for name, gradient in gradients.items():
        assert_close_to_largest(model.gradients[name], gradient, 1e-4, name)


# --- the loss and its weights -------------------------------------------------------------------


@pytest.fixture
def model(lively_model: Callable[..., GPT]) -> GPT:
    return lively_model(standard(), dtype=np.float64)


@pytest.fixture
def batch(make_batch: Any) -> tuple[Array, Array]:
    return make_batch(standard(), 3, 7)


def test_the_loss_is_the_mean_of_the_token_log_probs(
    model: GPT, batch: tuple[Array, Array]
) -> None:
    log_probs = model.token_log_probs(*batch)
    assert log_probs.shape == (3, 7)
    assert model.loss(*batch) == pytest.approx(-log_probs.mean(), rel=1e-14)
    assert model.loss_and_grad(*batch) == pytest.approx(-log_probs.mean(), rel=1e-14)


def test_the_token_log_probs_are_those_of_the_logits(
    model: GPT, batch: tuple[Array, Array]
) -> None:
    ids, targets = batch
    logits = model.logits(ids)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = np.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(model.token_log_probs(ids, targets), expected, atol=1e-13)


def test_a_mask_gives_the_mean_over_the_tokens_it_keeps(
    model: GPT, batch: tuple[Array, Array]
) -> None:
    mask = np.random.default_rng(0).integers(0, 2, (3, 7)).astype(bool)
    expected = -model.token_log_probs(*batch)[mask].mean()
    assert model.loss(*batch, weights=mask) == pytest.approx(expected)
    assert model.loss_and_grad(*batch, weights=mask) == pytest.approx(expected)


def test_weights_of_one_are_no_weights(model: GPT, batch: tuple[Array, Array]) -> None:
    plain = model.loss_and_grad(*batch)
    gradients = model.gradients.flat.copy()
    assert model.loss_and_grad(*batch, weights=np.ones((3, 7))) == plain
    np.testing.assert_array_equal(model.gradients.flat, gradients)


def test_masked_positions_at_the_end_of_a_row_could_as_well_not_be_there(
    model: GPT, batch: tuple[Array, Array]
) -> None:
    ids, targets = batch
    loss = model.loss_and_grad(ids[:, :4], targets[:, :4])
    gradients = model.gradients.flat.copy()
    padded = model.loss_and_grad(ids, targets, weights=np.arange(7) < np.full((3, 1), 4))
    assert padded == pytest.approx(loss, rel=1e-13)
    np.testing.assert_allclose(model.gradients.flat, gradients, atol=1e-14)


def test_all_weights_zero_give_zero(model: GPT, batch: tuple[Array, Array]) -> None:
    model.loss_and_grad(*batch)
    assert model.loss_and_grad(*batch, weights=np.zeros((3, 7))) == 0
    assert not model.gradients.flat.any()


def test_negative_weights_turn_the_gradient_round(model: GPT, batch: tuple[Array, Array]) -> None:
    weights = np.random.default_rng(0).random((3, 7)) + 0.1
    loss = model.loss_and_grad(*batch, weights=weights)
    gradients = model.gradients.flat.copy()
    assert model.loss_and_grad(*batch, weights=-weights) == pytest.approx(-loss)
    np.testing.assert_allclose(model.gradients.flat, -gradients, atol=1e-16)


def test_loss_and_gradient_are_linear_in_the_weights(
    model: GPT, batch: tuple[Array, Array]
) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 3, 7))  # none of them 0: the divisor is 21 each time

    def both(weights: Array) -> Array:
        loss = model.loss_and_grad(*batch, weights=weights)
        assert model.loss(*batch, weights=weights) == pytest.approx(loss, rel=1e-12)
        return np.r_[loss, model.gradients.flat]

    expected = 2 * both(first) - 3 * both(second)
    np.testing.assert_allclose(both(2 * first - 3 * second), expected, atol=1e-13)


def test_a_vector_is_a_batch_of_one_row(model: GPT, batch: tuple[Array, Array]) -> None:
    ids, targets = batch
    assert model.loss(ids[0], targets[0]) == model.loss(ids[:1], targets[:1])
    weights = [1, 0, 0, 2, 0, 0, -1]
    assert model.loss_and_grad(ids[0], targets[0], weights) == pytest.approx(
        model.loss(ids[:1], targets[:1], [weights])
    )
    assert model.logits([1, 2, 3]).shape == (1, 3, 11)


def test_every_integer_type_and_plain_lists_are_ids(model: GPT) -> None:
    ids, targets = [[1, 2, 3]], [[2, 3, 4]]
    expected = model.loss(ids, targets)
    for dtype in (np.uint8, np.uint16, np.int32, np.uint64):
        assert model.loss(np.array(ids, dtype), np.array(targets, dtype)) == expected
    strided = np.arange(12).reshape(6, 2)[::2].T % 11
    assert model.loss(strided, strided) == model.loss(strided.copy(), strided.copy())


# --- causality and state ------------------------------------------------------------------------


@pytest.mark.parametrize("length", [7, 70])
def test_a_later_token_changes_no_earlier_logit(
    length: int, lively_model: Callable[..., GPT], make_batch: Any
) -> None:
    model = lively_model(standard())
    ids, _ = make_batch(model.config, 2, length)
    before = model.logits(ids)
    for changed in (1, length // 2, length - 1):
        other = ids.copy()
        other[:, changed] = (other[:, changed] + 1) % 11
        after = model.logits(other)
        np.testing.assert_array_equal(after[:, :changed], before[:, :changed])
        assert (after[:, changed] != before[:, changed]).any()


def test_rows_of_a_batch_know_nothing_of_each_other(model: GPT, batch: tuple[Array, Array]) -> None:
    ids, _ = batch
    together = model.logits(ids)
    for row in range(3):
        np.testing.assert_allclose(model.logits(ids[row : row + 1])[0], together[row], atol=1e-13)


def test_order_matters(model: GPT) -> None:
    logits = model.logits([[1, 2, 3, 4], [2, 1, 3, 4]])
    assert np.abs(logits[0, -1] - logits[1, -1]).max() > 1e-3


def test_calls_with_other_shapes_in_between_change_nothing(
    lively_model: Callable[..., GPT], make_batch: Any
) -> None:
    model = lively_model(standard())
    batch = make_batch(model.config, 2, 9)
    loss, logits = model.loss_and_grad(*batch), model.logits(batch[0])
    gradients = model.gradients.flat.copy()
    for n_batch, length in ((1, 1), (4, 70), (9, 2), (2, 8)):
        other = make_batch(model.config, n_batch, length, seed=length)
        model.loss_and_grad(*other)
        model.loss(*other)
        model.logits(other[0])
    np.testing.assert_array_equal(model.logits(batch[0]), logits)
    assert model.loss_and_grad(*batch) == loss
    np.testing.assert_array_equal(model.gradients.flat, gradients)


def test_a_pass_without_gradients_leaves_the_gradients(
    model: GPT, batch: tuple[Array, Array]
) -> None:
    model.loss_and_grad(*batch)
    gradients = model.gradients.flat.copy()
    model.loss(*batch)
    model.token_log_probs(*batch)
    model.logits(batch[0])
    np.testing.assert_array_equal(model.gradients.flat, gradients)


@heads
def test_the_same_call_gives_the_same_bits(
    tied_head: bool, lively_model: Callable[..., GPT], make_batch: Any
) -> None:
    config = small(n_embd=8, n_layer=2, n_head=2, tied_head=tied_head)
    model = lively_model(config)
    batch = make_batch(config, 3, 70)
    loss = model.loss_and_grad(*batch)
    gradients = model.gradients.flat.copy()
    assert model.loss_and_grad(*batch) == loss
    np.testing.assert_array_equal(model.gradients.flat, gradients)
    fresh = lively_model(config)
    assert fresh.loss_and_grad(*batch) == loss
    np.testing.assert_array_equal(fresh.gradients.flat, gradients)


def test_what_is_given_is_not_changed_and_what_is_returned_is_a_copy(model: GPT) -> None:
    ids, targets = np.array([[1, 2, 3]]), np.array([[2, 3, 4]])
    weights = np.array([[1.0, 0, 2]])
    parameters = model.parameters.flat.copy()
    logits, log_probs = model.logits(ids), model.token_log_probs(ids, targets)
    kept = logits.copy(), log_probs.copy()
    model.loss_and_grad(ids, targets, weights)
    model.logits([[5, 6, 7]])
    model.token_log_probs([[5, 6, 7]], [[5, 6, 7]])
    np.testing.assert_array_equal(logits, kept[0])
    np.testing.assert_array_equal(log_probs, kept[1])
    np.testing.assert_array_equal(model.parameters.flat, parameters)
    assert (ids.tolist(), targets.tolist()) == ([[1, 2, 3]], [[2, 3, 4]])
    assert weights.tolist() == [[1, 0, 2]]


def test_a_step_on_the_flat_buffer_changes_the_model(
    model: GPT, batch: tuple[Array, Array]
) -> None:
    before = model.loss_and_grad(*batch)
    slope = float((model.gradients.flat**2).sum())
    model.parameters.flat -= 1e-4 * model.gradients.flat
    assert model.loss(*batch) == pytest.approx(before - 1e-4 * slope, rel=1e-4)


def test_parameters_and_gradients_are_views_of_one_buffer_each(model: GPT) -> None:
    for table in (model.parameters, model.gradients):
        assert all(np.shares_memory(view, table.flat) for view in table.values())
        assert sum(view.size for view in table.values()) == model.config.n_parameters
    assert model.gradients.ranges == model.parameters.ranges
    model.gradients.flat[:] = 1
    assert all((view == 1).all() for view in model.gradients.values())


def test_gradients_are_zero_before_the_first_pass() -> None:
    assert not GPT(standard()).gradients.flat.any()


def test_the_seed_decides_the_weights_and_the_dtype_does_not() -> None:
    one, same, other = (GPT(standard(), seed=seed).parameters.flat for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    wide = GPT(standard(), seed=5, dtype=np.float64).parameters
    for name, value in GPT(standard(), seed=5).parameters.items():
        np.testing.assert_array_equal(wide[name].astype(np.float32), value)


def test_a_new_model_is_nearly_uniform(make_batch: Any) -> None:
    config = ModelConfig.preset("gpt-100k")
    assert GPT(config).loss(*make_batch(config, 2, 32)) == pytest.approx(np.log(1024), rel=0.02)


# --- extreme weights ----------------------------------------------------------------------------


@heads
@pytest.mark.parametrize("n_kv_head", [4, 2], ids=["own keys", "shared keys"])
@pytest.mark.parametrize("length", [9, 67])
@pytest.mark.parametrize(
    "parts", [("attention.qkv",), ("embedding", "head"), ("",)], ids=["scores", "logits", "all"]
)
def test_weights_a_hundred_times_too_large(
    parts: tuple[str, ...],
    length: int,
    n_kv_head: int,
    tied_head: bool,
    lively_model: Callable[..., GPT],
    make_batch: Any,
) -> None:
    """Scores and logits far past what exp can take; an overflow would be a warning, an error."""
    config = small(n_embd=16, n_layer=2, n_head=4, n_kv_head=n_kv_head, tied_head=tied_head)
    ids, targets = make_batch(config, 2, length)
    narrow, wide = lively_model(config), GPT(config, dtype=np.float64)
    for name in narrow.parameters:
        if name.endswith(parts):
            narrow.parameters[name][...] *= 100
    wide.parameters.assign(narrow.parameters)
    twin = ReferenceGPT(config, dict(wide.parameters))
    with np.errstate(over="ignore"):  # the plain sigmoid: exp(-gate) may be inf there
        expected, gradients = twin.loss_and_grad(ids, targets)
    assert wide.loss_and_grad(ids, targets) == pytest.approx(expected, rel=1e-9)
    assert wide.loss(ids, targets) == pytest.approx(expected, rel=1e-9)
    for name, gradient in gradients.items():
        assert_close_to_largest(wide.gradients[name], gradient, 1e-6, name)
    assert narrow.loss_and_grad(ids, targets) == pytest.approx(expected, rel=2e-2)
    assert np.isfinite(narrow.gradients.flat).all()


# --- refusals -----------------------------------------------------------------------------------

GOOD = [[1, 2, 3]]


@pytest.mark.parametrize(
    ("ids", "targets", "weights", "line"),
    [
        ([[1, 2, 11]], GOOD, None, r"ids holds an id outside 0\.\.10 \(from 1 to 11\).*vocab_size"),
        (GOOD, [[1, -1, 3]], None, r"targets holds an id outside 0\.\.10 \(from -1 to 3\)"),
        ([[1.0, 2.0, 3.0]], GOOD, None, r"ids holds float64; token ids are whole numbers"),
        (GOOD, [["a", "b", "c"]], None, r"targets holds .*; token ids are whole numbers"),
        ([[True, False, True]], GOOD, None, r"ids holds bool; token ids are whole numbers"),
        (GOOD, [[1, 2]], None, r"ids are \(1, 3\), targets \(1, 2\): they must agree"),
        ([[[1, 2, 3]]], GOOD, None, r"ids has shape \(1, 1, 3\); it must be \[B, T\]"),
        ([], [], None, r"ids has shape \(1, 0\); it must be \[B, T\]"),
        (np.zeros((0, 3), int), GOOD, None, r"ids has shape \(0, 3\)"),
        (GOOD, GOOD, [[1, 1]], r"weights have shape \(1, 2\), ids \(1, 3\): they must agree"),
        (GOOD, GOOD, [[1, np.nan, 1]], r"weights hold a NaN or an infinity"),
        (GOOD, GOOD, [[1, -np.inf, 1]], r"weights hold a NaN or an infinity"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(
    ids: Any, targets: Any, weights: Any, line: str
) -> None:
    model = GPT(standard())
    for refuse in (model.loss_and_grad, model.loss):
        with pytest.raises(ConfigError, match=line) as caught:
            refuse(ids, targets, weights)
        assert "\n" not in str(caught.value)
    assert np.isfinite(model.loss_and_grad(GOOD, GOOD))


def test_ids_outside_the_vocabulary_are_refused_by_every_pass() -> None:
    model = GPT(standard())
    with pytest.raises(ConfigError, match=r"outside 0\.\.10"):
        model.logits([[11]])
    with pytest.raises(ConfigError, match=r"outside 0\.\.10"):
        model.token_log_probs([[1]], [[11]])


@pytest.mark.parametrize("dtype", [np.float16, np.int32, np.complex128])
def test_a_dtype_it_cannot_compute_in_is_refused(dtype: type) -> None:
    with pytest.raises(ConfigError, match="a model computes in float32 or float64"):
        GPT(standard(), dtype=dtype)


@pytest.mark.parametrize("preset", ["gpt-1k", "rwkv7-100k"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_no_number_is_named(preset: str, bad: float) -> None:
    """By its parameter and by the step."""
    model = build_model(ModelConfig.preset(preset, vocab_size=50))
    ids = np.array([[1, 2, 3, 4]])
    model.loss_and_grad(ids, ids)
    model.parameters["final_norm.gain"][2] = bad
    with (
        np.errstate(all="ignore"),
        pytest.raises(NotFiniteError, match=r"the gradient of \S+ holds .* at step 2 "),
    ):
        model.loss_and_grad(ids, ids)


def test_the_parameter_at_fault_is_the_one_named() -> None:
    model = build_model(ModelConfig.preset("gpt-1k", vocab_size=50))
    ids = np.array([[1, 2, 3, 4]])
    model.loss_and_grad(ids, ids)
    assert model.faulty_gradient() == ""
    model.gradients["layers.0.mlp.down"][3, 1] = np.inf
    assert model.faulty_gradient() == "layers.0.mlp.down"


@pytest.mark.parametrize(("kind", "preset"), [(GPT, "rwkv7-100k"), (RWKV7, "gpt-1k")])
def test_a_config_of_another_kind_is_refused(kind: type, preset: str) -> None:
    with pytest.raises(ConfigError, match="build_model"):
        kind(ModelConfig.preset(preset))


def test_a_gradient_that_is_zero_where_it_should_not_be_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forgetful(self: GPT, *args: Any) -> float:
        loss = honest(self, *args)
        self.gradients["layers.0.mlp.down"][...] = 0
        return loss

    honest = GPT.loss_and_grad
    monkeypatch.setattr(GPT, "loss_and_grad", forgetful)
    rows = check_gradients(GPT(ModelConfig.preset("gpt-1k", vocab_size=50)))
    assert [row.name for row in rows if not row.ok] == ["layers.0.mlp.down"]
