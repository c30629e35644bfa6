"""SGD, Lion, Schedule-Free AdamW and Muon equal the reference implementations over 100 steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from phi_optim import SGD, Lion, Muon, ScheduleFreeAdamW

SHAPES = {"square": (16, 16), "wide": (8, 24), "tall": (40, 6), "gain": (9,)}
MATRICES = ("square", "wide", "tall")
STEPS = 100


def _run(make, make_oracle, *, names=SHAPES, dtype=np.float64, rate=1e-2, schedule=True):
    """(ours, torch's, our optimiser, the oracle) after 100 steps on a noisy quadratic.

    Each side takes its gradients at its own parameters.
    """
    rng = np.random.default_rng(0)
    ours = {name: rng.standard_normal(SHAPES[name]).astype(dtype) for name in names}
    theirs = {name: torch.nn.Parameter(torch.tensor(v)) for name, v in ours.items()}
    optimizer, oracle = make(ours), make_oracle(theirs)
    for step in range(STEPS):
        now = rate * (1 - step / 200) if schedule else rate
        noise = {name: rng.standard_normal(SHAPES[name]).astype(dtype) for name in names}
        for name, parameter in theirs.items():
            parameter.grad = parameter.detach().clone() + torch.tensor(noise[name])
        for group in oracle.param_groups:
            group["lr"] = now
        optimizer.step({n: ours[n] + noise[n] for n in names}, learning_rate=now)
        oracle.step()
    return ours, theirs, optimizer, oracle


def _assert_equal(ours, theirs, **tolerance):
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name].detach().numpy(), err_msg=name, **tolerance)


def _groups(theirs, weight_decay):
    """Matrices decay, gains do not."""
    gains = [p for name, p in theirs.items() if name not in MATRICES]
    groups = [{"params": [theirs[name] for name in MATRICES], "weight_decay": weight_decay}]
    return [*groups, {"params": gains, "weight_decay": 0.0}]


@pytest.mark.parametrize(
    ("momentum", "nesterov", "weight_decay"),
    [(0.0, False, 0.0), (0.0, False, 0.1), (0.9, False, 0.0), (0.9, True, 0.0)],
)
def test_sgd_equals_torch(momentum, nesterov, weight_decay):
    """With momentum torch's decay is part of the gradient, ours is not: compared without."""
    settings = {"momentum": momentum, "nesterov": nesterov}
    ours, theirs, *_ = _run(
        lambda values: SGD(values, weight_decay=weight_decay, **settings),
        lambda values: torch.optim.SGD(_groups(values, weight_decay), lr=1e-2, **settings),
    )
    _assert_equal(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.95, 0.98)])
def test_lion_equals_lion_pytorch(weight_decay, betas):
    lion = pytest.importorskip("lion_pytorch", reason="pip install lion-pytorch")
    ours, theirs, *_ = _run(
        lambda values: Lion(values, weight_decay=weight_decay, betas=betas),
        lambda values: lion.Lion(_groups(values, weight_decay), lr=1e-2, betas=betas),
    )
    _assert_equal(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("betas", "warmup_steps"), [((0.9, 0.999), 0), ((0.95, 0.99), 20)])
@pytest.mark.parametrize("schedule", [False, True])
def test_schedule_free_equals_schedulefree(weight_decay, betas, warmup_steps, schedule):
    """Both views; also with a rate that falls, whose largest value weighs the average."""
    schedulefree = pytest.importorskip("schedulefree", reason="pip install schedulefree")
    settings = {"betas": betas, "warmup_steps": warmup_steps}

    def oracle(values):
        made = schedulefree.AdamWScheduleFree(
            _groups(values, weight_decay), lr=1e-2, foreach=False, **settings
        )
        made.train()
        return made

    ours, theirs, optimizer, peer = _run(
        lambda values: ScheduleFreeAdamW(values, weight_decay=weight_decay, **settings),
        oracle,
        schedule=schedule,
    )
    _assert_equal(ours, theirs, rtol=1e-9, atol=1e-11)
    optimizer.eval()
    peer.eval()
    _assert_equal(ours, theirs, rtol=1e-9, atol=1e-11)


MUON = [
    ("original", True, 0.1),
    ("match_rms_adamw", True, 0.1),
    ("match_rms_adamw", False, 0.0),
]


def _muon(adjust, nesterov, weight_decay, dtype):
    settings = {"nesterov": nesterov, "weight_decay": weight_decay}
    return _run(
        lambda values: Muon(values, adjust=adjust, **settings),
        lambda values: torch.optim.Muon(
            values.values(), lr=1e-2, momentum=0.95, adjust_lr_fn=adjust, **settings
        ),
        names=MATRICES,
        dtype=dtype,
    )


@pytest.mark.parametrize(("adjust", "nesterov", "weight_decay"), MUON)
def test_muon_equals_torch_in_float64(monkeypatch, adjust, nesterov, weight_decay):
    """torch makes its products in bfloat16; here it is kept from rounding to it."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())
    ours, theirs, *_ = _muon(adjust, nesterov, weight_decay, np.float64)
    _assert_equal(ours, theirs, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(("adjust", "nesterov", "weight_decay"), MUON)
def test_muon_equals_torch_to_the_rounding_of_bfloat16(adjust, nesterov, weight_decay):
    ours, theirs, *_ = _muon(adjust, nesterov, weight_decay, np.float32)
    for name, value in ours.items():
        difference = np.abs(value - theirs[name].detach().numpy())
        assert difference.max() < 0.05, name
        assert np.sqrt((difference**2).mean()) < 0.02 * np.sqrt((value**2).mean()), name
