"""Three defects that a backward pass of this kind once had, each brought back on purpose.

One check, slopes of the loss by finite differences in two training steps in a row, passes for
GPT and for ReferenceGPT and fails for each copy with a defect, at the parameters it spoils.
docs/gradients.md, section 8, says why each is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from phi_model import GPT, ModelConfig, reference
from phi_model.reference import ReferenceGPT

Array = NDArray[Any]
LossAndGrad = Callable[[ArrayLike, ArrayLike], tuple[float, dict[str, Array]]]

TIED = ModelConfig(vocab_size=7, n_embd=6, n_layer=2, n_head=1, n_hidden=5, tied_head=True)
UNTIED = ModelConfig(vocab_size=7, n_embd=6, n_layer=2, n_head=1, n_hidden=5, tied_head=False)
both_heads = pytest.mark.parametrize("config", [TIED, UNTIED], ids=["tied", "untied"])


# --- the three defects --------------------------------------------------------------------------


class NormBackwardFirst(ReferenceGPT):
    """Defect 1: the norm's backward runs before that of the sublayer it feeds."""

    def mlp_sublayer_backward(self, dy: Array, kept: Any, i: int, g: dict[str, Array]) -> Array:
        kept_norm, kept_gate_up, kept_swiglu, kept_down = kept
        dh, g[f"layers.{i}.mlp_norm.gain"] = reference.rmsnorm_backward(dy, kept_norm)
        dhidden, g[f"layers.{i}.mlp.down"] = reference.linear_backward(dh, kept_down)
        dgate_up = reference.swiglu_backward(dhidden, kept_swiglu)
        dx, g[f"layers.{i}.mlp.gate_up"] = reference.linear_backward(dgate_up, kept_gate_up)
        return dy + dx

    def attention_sublayer_backward(
        self, dy: Array, kept: Any, i: int, g: dict[str, Array]
    ) -> Array:
        kept_norm, kept_qkv, kept_q, kept_k, kept_attend, kept_out = kept
        dh, g[f"layers.{i}.attention_norm.gain"] = reference.rmsnorm_backward(dy, kept_norm)
        dattended, g[f"layers.{i}.attention.out"] = reference.linear_backward(dh, kept_out)
        dq, dk, dv = reference.attend_backward(self._split_heads(dattended), kept_attend)
        dq = self.place_backward(dq, kept_q, f"layers.{i}.attention.q_norm.gain", g)
        dk = self.place_backward(dk, kept_k, f"layers.{i}.attention.k_norm.gain", g)
        dqkv = np.concatenate([self._join_heads(part) for part in (dq, dk, dv)], axis=-1)
        dx, g[f"layers.{i}.attention.qkv"] = reference.linear_backward(dqkv, kept_qkv)
        return dy + dx


def rmsnorm_backward_without_rrms(dy: Array, kept: Any) -> tuple[Array, Array]:
    """Defect 2: the second term of dx lacks one factor 1/rms."""
    x, gain, rrms = kept
    dgain = (dy * x * rrms).reshape(-1, x.shape[-1]).sum(axis=0)
    dnormed = dy * gain
    projection = (dnormed * x).mean(axis=-1, keepdims=True)
    return rrms * dnormed - x * rrms**2 * projection, dgain


class EmbeddingNeverReset(ReferenceGPT):
    """Defect 3: the tied embedding's gradient is added to what the step before left."""

    _left_over: Array | float = 0.0

    def loss_and_grad(self, *batch: Any) -> tuple[float, dict[str, Array]]:
        loss, g = super().loss_and_grad(*batch)
        g["embedding"] = self._left_over = g["embedding"] + self._left_over
        return loss, g


# --- the one check ------------------------------------------------------------------------------


def wrong_gradients(parameters: Any, config: ModelConfig, loss_and_grad: LossAndGrad) -> list[str]:
    """Per step, the parameters whose slope along a random direction is not the loss's slope."""
    rng = np.random.default_rng(0)
    plain = ReferenceGPT(config, parameters)
    wrong = []
    for step in (1, 2):
        ids, targets = rng.integers(0, config.vocab_size, (2, 2, 5))
        loss, gradients = loss_and_grad(ids, targets)
        gradients = {name: gradient.copy() for name, gradient in gradients.items()}
        assert loss == pytest.approx(plain.loss_and_grad(ids, targets)[0])
        for name, value in parameters.items():
            direction = rng.standard_normal(value.shape)
            direction /= np.linalg.norm(direction)
            start, losses = value.copy(), []
            for multiple in (-2, -1, 1, 2):
                value[...] = start + multiple * 1e-3 * direction
                losses.append(plain.loss_and_grad(ids, targets)[0])
            value[...] = start
            slope = (losses[0] - 8 * losses[1] + 8 * losses[2] - losses[3]) / 12e-3
            claimed = float((gradients[name] * direction).sum())
            if not abs(claimed - slope) < 1e-7 * max(abs(slope), 1e-2):
                wrong.append(f"step {step}: {name}")
        for name, value in parameters.items():
            value[...] -= 1e-2 * gradients[name]
    return wrong


@pytest.fixture
def start(lively_model: Callable[..., GPT]) -> Callable[[ModelConfig], GPT]:
    return lambda config: lively_model(config, dtype=np.float64)


Start = Callable[[ModelConfig], GPT]


@both_heads
def test_gpt_is_sound(config: ModelConfig, start: Start) -> None:
    model = start(config)

    def loss_and_grad(ids: ArrayLike, targets: ArrayLike) -> tuple[float, dict[str, Array]]:
        return model.loss_and_grad(ids, targets), dict(model.gradients)

    assert not wrong_gradients(model.parameters, config, loss_and_grad)


@both_heads
def test_the_reference_is_sound(config: ModelConfig, start: Start) -> None:
    parameters = start(config).parameters
    assert not wrong_gradients(parameters, config, ReferenceGPT(config, parameters).loss_and_grad)


@both_heads
def test_a_norm_backward_before_its_sublayer_is_caught(config: ModelConfig, start: Start) -> None:
    parameters = start(config).parameters
    defective = NormBackwardFirst(config, parameters)
    wrong = wrong_gradients(parameters, config, defective.loss_and_grad)
    for name in ("mlp_norm.gain", "mlp.down", "mlp.gate_up"):
        assert f"step 1: layers.1.{name}" in wrong
    for name in ("attention_norm.gain", "attention.out", "attention.qkv"):
        assert f"step 1: layers.0.{name}" in wrong
    assert "step 1: embedding" in wrong  # and everything below inherits it
    assert "step 1: final_norm.gain" not in wrong  # which comes before it


@both_heads
def test_a_missing_rrms_in_the_norm_is_caught(
    config: ModelConfig, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = start(config).parameters
    monkeypatch.setattr(reference, "rmsnorm_backward", rmsnorm_backward_without_rrms)
    defective = ReferenceGPT(config, parameters)
    wrong = wrong_gradients(parameters, config, defective.loss_and_grad)
    everything_below = [n for n in parameters if n not in ("final_norm.gain", "head")]
    assert set(wrong) >= {f"step 1: {name}" for name in everything_below}
    assert "step 1: final_norm.gain" not in wrong  # a gain's own gradient is still right


def test_an_embedding_gradient_that_is_never_reset_is_caught(start: Start) -> None:
    parameters = start(TIED).parameters
    defective = EmbeddingNeverReset(TIED, parameters)
    wrong = wrong_gradients(parameters, TIED, defective.loss_and_grad)
    assert wrong == ["step 2: embedding"]  # the first step cannot show it


# --- the same three, each seen on the fast path alone -------------------------------------------


def test_gpt_keeps_nothing_of_the_step_before(start: Start) -> None:
    for config in (TIED, UNTIED):
        model, fresh = start(config), start(config)
        rng = np.random.default_rng(0)
        model.loss_and_grad(*rng.integers(0, 7, (2, 4, 9)))
        batch = rng.integers(0, 7, (2, 2, 5))
        model.loss_and_grad(*batch)
        fresh.loss_and_grad(*batch)
        np.testing.assert_array_equal(model.gradients.flat, fresh.gradients.flat)


def test_gpt_overwrites_whatever_stands_in_its_gradients(start: Start) -> None:
    for config in (TIED, UNTIED):
        model, fresh = start(config), start(config)
        batch = np.random.default_rng(0).integers(0, 7, (2, 2, 5))
        for gradient in model.gradients.values():
            gradient[...] = 1e6
        model.loss_and_grad(*batch)
        fresh.loss_and_grad(*batch)
        for name, gradient in fresh.gradients.items():
            np.testing.assert_array_equal(model.gradients[name], gradient, err_msg=name)


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_the_norms_gradient_scales_with_one_over_rms(scale: float, start: Start) -> None:
    """Both terms of the norm's dx are of the order 1/rms.

    A scaled embedding (and layers of no output) leave the untied model's loss as it was, and so
    the embedding's gradient has to shrink by that scale; with a term of another order it cannot.
    """
    config = ModelConfig(**UNTIED.to_dict() | {"norm_eps": 1e-30})
    model = start(config)
    for name, value in model.parameters.items():
        if name.endswith((".out", ".down")):
            value[...] = 0
    batch = np.random.default_rng(0).integers(0, 7, (2, 2, 5))
    loss = model.loss_and_grad(*batch)
    before = model.gradients["embedding"].copy()
    model.parameters["embedding"][...] *= scale
    assert model.loss_and_grad(*batch) == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(model.gradients["embedding"] * scale, before, atol=1e-13)


def test_a_sublayer_without_output_passes_no_gradient_but_to_its_output(start: Start) -> None:
    """With down = 0 the MLP adds nothing, so only down itself can feel the loss.

    A norm's backward that runs first would see the residual stream's gradient instead.
    """
    model = start(TIED)
    model.parameters["layers.1.mlp.down"][...] = 0
    model.loss_and_grad(*np.random.default_rng(0).integers(0, 7, (2, 2, 5)))
    assert not model.gradients["layers.1.mlp_norm.gain"].any()
    assert not model.gradients["layers.1.mlp.gate_up"].any()
    assert model.gradients["layers.1.mlp.down"].all()
