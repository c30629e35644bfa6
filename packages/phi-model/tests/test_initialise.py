"""The sizes of a new model's weights, and what they mean for its residual stream."""

from __future__ import annotations

import numpy as np
import pytest

from phi_model import GPT, ModelConfig
from phi_model.reference import ReferenceGPT


def sizes(config: ModelConfig) -> dict[str, float]:
    """Standard deviation times sqrt(fan-in) of each matrix of the first layer, by short name."""
    parameters = GPT(config, seed=1).parameters
    return {
        name.removeprefix("layers.0."): float(value.std() * value.shape[1] ** 0.5)
        for name, value in parameters.items()
        if name.startswith("layers.0.") and value.ndim == 2
    }


@pytest.mark.parametrize(
    ("residual_init", "n_layer", "residual"),
    [("small", 2, 0.005), ("small", 8, 0.005), ("scaled", 2, 0.25), ("scaled", 8, 0.125)],
)
def test_matrices_have_the_documented_sizes(
    residual_init: str, n_layer: int, residual: float
) -> None:
    config = ModelConfig(n_embd=96, n_layer=n_layer, n_head=4, residual_init=residual_init)
    found = sizes(config)
    for name in ("attention.qkv", "mlp.gate_up"):
        assert found[name] == pytest.approx(0.5, rel=0.03)
    for name in ("attention.out", "mlp.down"):
        assert found[name] == pytest.approx(residual, rel=0.03)


def test_only_the_matrices_into_the_residual_stream_depend_on_the_choice() -> None:
    small = GPT(ModelConfig(n_layer=2, residual_init="small"), seed=3).parameters
    scaled = GPT(ModelConfig(n_layer=2, residual_init="scaled"), seed=3).parameters
    for name, value in small.items():
        factor = 50 if name.endswith(("attention.out", "mlp.down")) else 1  # 0.5 / 2 over 0.005
        np.testing.assert_allclose(scaled[name], factor * value, rtol=1e-6)


@pytest.mark.parametrize("qk_norm", [True, False])
def test_gains_start_at_one(qk_norm: bool) -> None:
    parameters = GPT(ModelConfig(n_layer=1, qk_norm=qk_norm)).parameters
    gains = {name: value for name, value in parameters.items() if value.ndim == 1}
    assert len(gains) == (5 if qk_norm else 3)
    assert all((value == 1).all() for value in gains.values())
    if qk_norm:
        assert gains["layers.0.attention.q_norm.gain"].shape == (32,)
        assert gains["layers.0.attention.k_norm.gain"].shape == (32,)


def test_qk_norm_makes_scores_blind_to_the_size_of_queries_and_keys() -> None:
    config = ModelConfig(
        vocab_size=50, n_embd=16, n_layer=2, n_head=2, qk_norm=True, norm_eps=1e-12
    )
    model = GPT(config, seed=2, dtype=np.float64)
    ids = np.random.default_rng(0).integers(0, 50, (2, 9))
    before = model.logits(ids)
    for i in range(2):
        model.parameters[f"layers.{i}.attention.qkv"][:32] *= 7  # queries and keys, not values
    np.testing.assert_allclose(model.logits(ids), before, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(
        ReferenceGPT(config, model.parameters).logits(ids), before, rtol=1e-7, atol=1e-9
    )
