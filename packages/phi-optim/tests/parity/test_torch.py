"""AdamW equals torch's, over 100 steps, in float64 (and in float32 to rounding)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from phi_optim import AdamW, clip_grad_norm

SHAPES = {"matrix": (17, 9), "gain": (9,), "tall": (40, 3)}


def _run(dtype: torch.dtype, *, weight_decay: float, betas: tuple[float, float], clip: float):
    """(ours, torch's) after 100 steps on a noisy quadratic, equal gradients for both."""
    rng = np.random.default_rng(0)
    numpy_dtype = torch.zeros(0, dtype=dtype).numpy().dtype
    ours = {name: rng.standard_normal(s).astype(numpy_dtype) for name, s in SHAPES.items()}
    theirs = {name: torch.nn.Parameter(torch.tensor(v)) for name, v in ours.items()}
    optimizer = AdamW(ours, learning_rate=1e-2, betas=betas, weight_decay=weight_decay)
    oracle = torch.optim.AdamW(
        [
            {"params": [theirs["matrix"], theirs["tall"]], "weight_decay": weight_decay},
            {"params": [theirs["gain"]], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=betas,
        eps=1e-8,
    )
    for step in range(100):
        rate = 1e-2 * (1 - step / 200)
        noise = {name: rng.standard_normal(s).astype(numpy_dtype) for name, s in SHAPES.items()}
        gradients = {name: ours[name] + noise[name] for name in SHAPES}
        for name, parameter in theirs.items():
            parameter.grad = parameter.detach().clone() + torch.tensor(noise[name])
        norm = clip_grad_norm(gradients, clip)
        torch_norm = torch.nn.utils.clip_grad_norm_(list(theirs.values()), clip)
        assert norm == pytest.approx(float(torch_norm), rel=1e-4)
        for group in oracle.param_groups:
            group["lr"] = rate
        oracle.step()
        optimizer.step(gradients, learning_rate=rate)
    return ours, {name: p.detach().numpy() for name, p in theirs.items()}


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.9, 0.999), (0.0, 0.9)])
def test_equals_torch_in_float64(weight_decay, betas):
    ours, theirs = _run(torch.float64, weight_decay=weight_decay, betas=betas, clip=float("inf"))
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-10, atol=1e-12)


def test_equals_torch_with_clipping():
    """torch adds 1e-6 to the norm that it divides by, hence the tolerance."""
    ours, theirs = _run(torch.float64, weight_decay=0.1, betas=(0.9, 0.95), clip=1.0)
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-5, atol=1e-6)


def test_equals_torch_in_float32_to_rounding():
    ours, theirs = _run(torch.float32, weight_decay=0.1, betas=(0.9, 0.95), clip=float("inf"))
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-4, atol=1e-5)
