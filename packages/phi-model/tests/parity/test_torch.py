"""The same GPT in torch, its gradients by autograd, sharing no line with ours.

Runs only where torch is installed (the `parity` environment) and fails where it is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from phi_model import GPT, ModelConfig
from phi_model import PRESETS as ALL_PRESETS

Tensor = torch.Tensor
Table = dict[str, Tensor]

PRESETS = {"gpt-1k": 80, "gpt-10k": 80, "gpt-100k": 80, "gpt-1m": 80}  # and tokens a row
LARGE_PRESETS = {"gpt-4m": 40, "gpt-9m": 24, "gpt-30m": 16}
CHOICES = {
    "shared keys": {"n_kv_head": 2},
    "one head of keys": {"n_kv_head": 1},
    "QK-norm": {"qk_norm": True},
    "scaling": {"rope_scaling": 3.0},
    "scaled start": {"residual_init": "scaled"},
    "all of them": {
        "n_kv_head": 2,
        "qk_norm": True,
        "rope_scaling": 3.0,
        "rope_base": 500.0,
        "tied_head": False,
        "n_hidden": 99,
        "residual_init": "scaled",
    },
}
TOLERANCES = {np.float64: 1e-10, np.float32: 1e-4}  # of the largest element


def rmsnorm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    return gain * x * torch.rsqrt((x * x).mean(dim=-1, keepdim=True) + eps)


def rope(x: Tensor, base: float, scaling: float) -> Tensor:
    """x [B, H, T, D]: each channel of the first half with its partner of the second as one
    complex number, turned."""
    length, size = x.shape[-2:]
    frequencies = base ** (-2 * torch.arange(size // 2, dtype=torch.float64) / size)
    angles = torch.outer(torch.arange(length, dtype=torch.float64) / scaling, frequencies)
    turn = torch.polar(torch.ones_like(angles), angles)
    turn = turn.to(torch.complex128 if x.dtype == torch.float64 else torch.complex64)
    turned = torch.complex(x[..., : size // 2], x[..., size // 2 :]) * turn
    return torch.cat([turned.real, turned.imag], dim=-1)


def attend(x: Tensor, p: Table, i: int, config: ModelConfig) -> Tensor:
    n_batch, length, width = x.shape
    heads = (x @ p[f"layers.{i}.attention.qkv"].T).view(n_batch, length, -1, config.head_size)
    n_heads = [config.n_head, config.n_kv_head, config.n_kv_head]
    q, k, v = heads.transpose(1, 2).split(n_heads, dim=1)
    if config.qk_norm:
        q = rmsnorm(q, p[f"layers.{i}.attention.q_norm.gain"], config.norm_eps)
        k = rmsnorm(k, p[f"layers.{i}.attention.k_norm.gain"], config.norm_eps)
    q, k = (rope(part, config.rope_base, config.rope_scaling) for part in (q, k))
    y = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=config.n_kv_head < config.n_head
    )
    y = y.transpose(1, 2).reshape(n_batch, length, width)
    return y @ p[f"layers.{i}.attention.out"].T


def mlp(x: Tensor, p: Table, i: int) -> Tensor:
    gate, up = (x @ p[f"layers.{i}.mlp.gate_up"].T).chunk(2, dim=-1)
    return (torch.nn.functional.silu(gate) * up) @ p[f"layers.{i}.mlp.down"].T


def forward(p: Table, ids: Tensor, config: ModelConfig) -> Tensor:
    """Logits [B, T, V]."""
    eps = config.norm_eps
    x = torch.nn.functional.embedding(ids, p["embedding"])
    for i in range(config.n_layer):
        x = x + attend(rmsnorm(x, p[f"layers.{i}.attention_norm.gain"], eps), p, i, config)
        x = x + mlp(rmsnorm(x, p[f"layers.{i}.mlp_norm.gain"], eps), p, i)
    x = rmsnorm(x, p["final_norm.gain"], eps)
    return x @ p["embedding" if config.tied_head else "head"].T


def loss_and_grad(
    model: GPT, ids: Any, targets: Any, weights: Any | None
) -> tuple[float, dict[str, Any], Any]:
    """torch's loss, gradients and logits for the parameters of `model`, in their dtype."""
    p = {name: torch.tensor(value, requires_grad=True) for name, value in model.parameters.items()}
    logits = forward(p, torch.tensor(ids), model.config)
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.tensor(targets).flatten(), reduction="none"
    )
    if weights is None:
        loss = losses.mean()
    else:
        flat = torch.tensor(weights, dtype=losses.dtype).flatten()
        loss = (losses * flat).sum() / torch.count_nonzero(flat)
    loss.backward()
    gradients = {name: tensor.grad.numpy() for name, tensor in p.items()}
    return loss.item(), gradients, logits.detach().numpy()


def error(found: Any, expected: Any) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def assert_equal_to_torch(model: GPT, ids: Any, targets: Any, weights: Any | None) -> None:
    tolerance = TOLERANCES[model.dtype.type]
    expected, gradients, logits = loss_and_grad(model, ids, targets, weights)
    assert model.loss_and_grad(ids, targets, weights) == pytest.approx(expected, rel=tolerance)
    assert error(model.logits(ids), logits) < tolerance
    assert model.gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert error(model.gradients[name], gradient) < tolerance, name


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["float64", "float32"])
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("new", [True, False], ids=["new", "lively"])
def test_loss_and_gradients_equal_torch(
    preset: str, dtype: type, new: bool, lively_model: Callable[..., GPT], make_batch: Any
) -> None:
    config = ModelConfig.preset(preset)
    model = GPT(config, seed=1, dtype=dtype) if new else lively_model(config, dtype=dtype)
    assert_equal_to_torch(model, *make_batch(config, 2, PRESETS[preset]), None)


@pytest.mark.parametrize("preset", LARGE_PRESETS)
@pytest.mark.parametrize("new", [True, False], ids=["new", "lively"])
def test_loss_and_gradients_of_the_large_presets_equal_torch(
    preset: str, new: bool, lively_model: Callable[..., GPT], make_batch: Any
) -> None:
    config = ModelConfig.preset(preset)
    model = GPT(config, seed=1) if new else lively_model(config)
    assert_equal_to_torch(model, *make_batch(config, 2, LARGE_PRESETS[preset]), None)


def test_no_preset_is_missing_above() -> None:
    assert [*PRESETS, *LARGE_PRESETS] == [n for n in ALL_PRESETS if n.startswith("gpt-")]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["float64", "float32"])
@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES.keys())
@pytest.mark.parametrize("preset", ["gpt-100k", "gpt-1m"])
def test_each_choice_equals_torch(
    preset: str,
    choices: dict[str, Any],
    dtype: type,
    lively_model: Callable[..., GPT],
    make_batch: Any,
) -> None:
    config = ModelConfig.preset(preset, n_head=4, **choices)
    assert_equal_to_torch(lively_model(config, dtype=dtype), *make_batch(config, 2, 80), None)


@pytest.mark.parametrize("choices", [{}, CHOICES["all of them"]], ids=["plain", "all of them"])
@pytest.mark.parametrize("runner", ["threads", "processes"])
def test_two_workers_equal_torch(
    runner: str, choices: dict[str, Any], lively_model: Callable[..., GPT], make_batch: Any
) -> None:
    config = ModelConfig.preset("gpt-100k", n_head=4, **choices)
    ids, targets = make_batch(config, 3, 70)
    weights = np.random.default_rng(0).integers(-1, 3, ids.shape) * 0.5
    model = lively_model(config)
    model.start_workers(2, batch_size=3, seq_len=70, runner=runner)
    try:
        for given in (None, weights):
            assert_equal_to_torch(model, ids, targets, given)
    finally:
        model.stop_workers()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["float64", "float32"])
@pytest.mark.parametrize("tied_head", [True, False], ids=["tied", "untied"])
def test_token_weights_and_both_heads_equal_torch(
    tied_head: bool, dtype: type, lively_model: Callable[..., GPT], make_batch: Any
) -> None:
    config = ModelConfig.preset("gpt-100k", tied_head=tied_head, vocab_size=77, n_hidden=51)
    ids, targets = make_batch(config, 3, 33)
    weights = np.random.default_rng(0).integers(-1, 3, ids.shape) * 0.5
    assert_equal_to_torch(lively_model(config, dtype=dtype), ids, targets, weights)
