"""Every choice of the plain GPT: its operation and the whole model against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from phi_model import ConfigError, ModelConfig, passes
from phi_model import reference_choices as ops
from phi_model.reference import ReferenceGPT
from phi_model.reference_choices import (
    ExperimentalGPT,
    ReferenceChoices,
    new_parameters,
    parameter_shapes,
)
from phi_model.reference_ops import attend, attend_backward

Array = NDArray[Any]

CONFIG = ModelConfig(vocab_size=11, seq_len=9, n_embd=8, n_layer=2, n_head=2, n_hidden=7)
CHOICES = {
    "none": {},
    "layernorm": {"norm": "layernorm"},
    "gelu": {"mlp": "gelu"},
    "relu": {"mlp": "relu"},
    "learned": {"positions": "learned"},
    "alibi": {"positions": "alibi"},
    "soft cap": {"logit_soft_cap": 2.0},
    "z-loss": {"z_loss": 0.3},
    "all": {
        "norm": "layernorm",
        "mlp": "gelu",
        "positions": "learned",
        "logit_soft_cap": 3.0,
        "z_loss": 0.1,
    },
}
MODELS = [{}, {"tied_head": False, "n_kv_head": 1, "qk_norm": True}]
every_choice = pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES.keys())


def lively(config: ModelConfig, choices: ReferenceChoices) -> dict[str, Array]:
    """Random parameters of full size."""
    rng = np.random.default_rng(0)
    values = {}
    for name, shape in parameter_shapes(config, choices).items():
        normal = rng.standard_normal(shape)
        size = 1 if name in ("embedding", "positions") else shape[-1] ** -0.5
        values[name] = 1 + normal / 4 if name.endswith(".gain") else size * normal
    return values


def slope(f: Callable[[float], float], step: float = 1e-3) -> float:
    """f'(0) by the five-point formula."""
    return (f(-2 * step) - 8 * f(-step) + 8 * f(step) - f(2 * step)) / (12 * step)


# --- each operation -----------------------------------------------------------------------------

OPERATIONS: dict[str, tuple[Any, Any, list[tuple[int, ...]]]] = {
    "layernorm": (
        lambda x, gain, bias: ops.layernorm(x, gain, bias, 1e-5),
        ops.layernorm_backward,
        [(3, 4, 5), (5,), (5,)],
    ),
    "gelu": (ops.gelu, ops.gelu_backward, [(3, 7)]),
    "relu": (ops.relu, ops.relu_backward, [(3, 7)]),
    "soft_cap": (lambda x: ops.soft_cap(x, 1.5), ops.soft_cap_backward, [(3, 7)]),
    "z_loss": (lambda x: ops.z_loss(x, 0.7), ops.z_loss_backward, [(2, 3, 7)]),
    "attend with alibi": (
        lambda q, k, v: attend(q, k, v, ops.alibi(2, 6)),
        attend_backward,
        [(3, 2, 6, 4)] * 3,
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_by_finite_differences(name: str) -> None:
    op, backward, shapes = OPERATIONS[name]
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(shape) for shape in shapes]
    if name == "relu":
        inputs[0] += np.sign(inputs[0]) * 0.1  # away from the corner
    y, kept = op(*inputs)
    dy = rng.standard_normal(y.shape)
    gradients = backward(dy, kept)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    assert len(gradients) == len(inputs)
    for n, gradient in enumerate(gradients):
        for _ in range(4):
            direction = rng.standard_normal(gradient.shape)
            direction /= np.linalg.norm(direction)

            def along(t: float, n: int = n, direction: Array = direction) -> float:
                moved = [x + t * direction if m == n else x for m, x in enumerate(inputs)]
                return float((op(*moved)[0] * dy).sum())

            expected = slope(along)
            assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-7)


# --- the whole model ----------------------------------------------------------------------------


@every_choice
@pytest.mark.parametrize("changes", MODELS, ids=["plain", "choices of the fast path"])
def test_every_parameter_by_finite_differences(
    choices: dict[str, Any], changes: dict[str, Any]
) -> None:
    config = ModelConfig(**CONFIG.to_dict() | changes)
    chosen = ReferenceChoices(**choices)
    values = lively(config, chosen)
    model = ExperimentalGPT(config, values, chosen)
    rng = np.random.default_rng(1)
    ids, targets = rng.integers(0, 11, (2, 3, 6))
    weights = rng.standard_normal((3, 6))
    loss, gradients = model.loss_and_grad(ids, targets, weights)
    assert gradients.keys() == values.keys()
    for name, value in values.items():
        gradient = gradients[name].copy()
        size = np.linalg.norm(gradient) / np.sqrt(gradient.size)
        for _ in range(3):
            direction = rng.standard_normal(value.shape)
            direction /= np.linalg.norm(direction)
            start = value.copy()

            def along(
                t: float, value: Array = value, start: Array = start, step: Array = direction
            ) -> float:
                value[...] = start + t * step
                return model.loss_and_grad(ids, targets, weights)[0]

            expected = slope(along, 1e-4 if choices.get("mlp") == "relu" else 1e-3)
            value[...] = start
            claimed = float((gradient * direction).sum())
            assert abs(claimed - expected) < 1e-6 * max(abs(expected), size), name
    assert model.loss_and_grad(ids, targets, weights)[0] == loss


@pytest.mark.parametrize("changes", MODELS, ids=["plain", "choices of the fast path"])
def test_without_choices_it_is_the_reference(changes: dict[str, Any]) -> None:
    config = ModelConfig(**CONFIG.to_dict() | changes)
    none = ReferenceChoices()
    assert parameter_shapes(config, none) == passes.parameter_shapes(config)
    values = lively(config, none)
    ids, targets = np.random.default_rng(0).integers(0, 11, (2, 2, 7))
    loss, gradients = ExperimentalGPT(config, values, none).loss_and_grad(ids, targets)
    expected, plain = ReferenceGPT(config, values).loss_and_grad(ids, targets)
    assert loss == expected
    for name, gradient in plain.items():
        np.testing.assert_array_equal(gradients[name], gradient)


@every_choice
def test_a_later_token_changes_no_earlier_logit(choices: dict[str, Any]) -> None:
    chosen = ReferenceChoices(**choices)
    model = ExperimentalGPT(CONFIG, lively(CONFIG, chosen), chosen)
    before, after = model.logits([[1, 2, 3, 4, 5]]), model.logits([[1, 2, 3, 9, 5]])
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert (before[:, 3:] != after[:, 3:]).any()


@every_choice
def test_order_matters_and_each_choice_changes_the_loss(choices: dict[str, Any]) -> None:
    chosen = ReferenceChoices(**choices)
    values = lively(CONFIG, chosen)
    model = ExperimentalGPT(CONFIG, values, chosen)
    logits = model.logits([[1, 2, 3, 4], [2, 1, 3, 4]])
    assert np.abs(logits[0, -1] - logits[1, -1]).max() > 1e-3
    plain = ExperimentalGPT(CONFIG, lively(CONFIG, ReferenceChoices()), ReferenceChoices())
    batch = [[1, 2, 3, 4]], [[2, 3, 4, 5]]
    differs = model.loss_and_grad(*batch)[0] != plain.loss_and_grad(*batch)[0]
    assert differs == bool(choices)


def test_a_few_steps_from_new_parameters_lower_the_loss() -> None:
    chosen = ReferenceChoices(**CHOICES["all"])
    table = new_parameters(CONFIG, chosen, seed=2)
    again = new_parameters(CONFIG, chosen, seed=2)
    np.testing.assert_array_equal(table.flat, again.flat)
    assert not table["layers.0.mlp_norm.bias"].any()
    assert table["positions"].std() == pytest.approx(0.05, rel=0.3)
    model = ExperimentalGPT(CONFIG, table, chosen)
    batch = np.random.default_rng(0).integers(0, 11, (2, 2, 6))
    losses = []
    for _ in range(20):
        loss, gradients = model.loss_and_grad(*batch)
        assert gradients["embedding"].dtype == np.float32
        losses.append(loss)
        for name, gradient in gradients.items():
            table[name][...] -= 0.3 * gradient
    assert losses[-1] < losses[0] - 0.3


# --- what they are ------------------------------------------------------------------------------


def test_the_shapes_are_those_of_the_choices() -> None:
    shapes = parameter_shapes(CONFIG, ReferenceChoices(**CHOICES["all"]))
    assert shapes["layers.1.mlp.up"] == (7, 8)
    assert shapes["positions"] == (9, 8)
    assert shapes["final_norm.bias"] == shapes["layers.0.attention_norm.bias"] == (8,)
    assert not any(name.endswith("gate_up") for name in shapes)
    with_qk_norm = ModelConfig(**CONFIG.to_dict() | {"qk_norm": True})
    shapes = parameter_shapes(with_qk_norm, ReferenceChoices(norm="layernorm"))
    assert sum(name.endswith(".bias") for name in shapes) == 5  # QK-norm stays as it is


def test_alibi_prefers_what_is_near() -> None:
    bias = ops.alibi(8, 5)
    np.testing.assert_allclose(bias[0, 4], [-2, -1.5, -1, -0.5, 0])  # the slope 1/2 of the paper
    np.testing.assert_allclose(bias[7, 4, 0], -4 / 256)


def test_a_soft_cap_is_never_passed_and_hardly_felt_below() -> None:
    y, _ = ops.soft_cap(np.array([-1e6, 0.1, 1e6]), 30.0)
    np.testing.assert_allclose(y, [-30, 0.1, 30], rtol=1e-5)


def test_z_loss_is_zero_for_normalised_logits_and_takes_any_size() -> None:
    log_p = np.log([[0.2, 0.5, 0.3]])
    np.testing.assert_allclose(ops.z_loss(log_p, 1.0)[0], 0, atol=1e-30)
    np.testing.assert_allclose(ops.z_loss(log_p + 1e4, 1.0)[0], 1e8)


def test_gelu_is_close_to_the_normal_distribution_s() -> None:
    y, _ = ops.gelu(np.array([-10.0, -1.0, 0.0, 1.0, 10.0]))
    np.testing.assert_allclose(y, [0, -0.158655, 0, 0.841345, 10], atol=2e-4)


@pytest.mark.parametrize(
    ("choices", "line"),
    [
        ({"norm": "batchnorm"}, r"norm is 'batchnorm'; it may be rmsnorm, layernorm"),
        ({"mlp": "silu"}, r"mlp is 'silu'; it may be swiglu, gelu, relu"),
        ({"positions": None}, r"positions is None; it may be rope, learned, alibi"),
        ({"z_loss": -1}, r"z_loss is -1; it must be a number, 0 \(none\) or more"),
        ({"logit_soft_cap": True}, r"logit_soft_cap is True; it must be a number"),
    ],
)
def test_an_unknown_choice_says_which_there_are(choices: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        ReferenceChoices(**choices)


def test_a_row_beyond_the_learned_positions_is_refused() -> None:
    chosen = ReferenceChoices(positions="learned")
    model = ExperimentalGPT(CONFIG, lively(CONFIG, chosen), chosen)
    assert model.logits([[1] * 9]).shape == (1, 9, 11)
    with pytest.raises(ConfigError, match="a row has 10 tokens; there are 9 learned positions"):
        model.logits([[1] * 10])
