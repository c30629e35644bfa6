"""Each optimiser against its slow twin, step by step, in float64 (AdamW has a file of its own)."""

from __future__ import annotations

import numpy as np
import pytest

from phi_optim import SGD, Lion, Muon, ScheduleFreeAdamW
from phi_optim.groups import is_matrix
from phi_optim.segments import BLOCK

STEPS = 12


def _follow(values, optimizer, twin, table, shapes, tolerance=1e-12):
    """Same gradients, rates and scales for both; compared after every step."""
    for step in range(STEPS):
        gradients = table(shapes, values[next(iter(shapes))].dtype, seed=100 + step)
        rate, scale = 3e-2 / (1 + step % 5), 1 / (1 + step % 3)
        optimizer.step(gradients, learning_rate=rate, scale=scale)
        twin.step(gradients, rate=rate, scale=scale)
        for name, value in values.items():
            np.testing.assert_allclose(
                value, twin.values[name], rtol=tolerance, atol=tolerance, err_msg=f"{name} {step}"
            )


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd(table, slow, shapes, weight_decay, momentum, nesterov):
    values = table(shapes, seed=1)
    settings = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    twin = slow.SGD(values, learning_rate=0.1, **settings, decays=is_matrix)
    _follow(values, SGD(values, **settings), twin, table, shapes)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.95, 0.98), (0.0, 0.9), (0.9, 0.0)])
def test_lion(table, slow, shapes, weight_decay, betas):
    values = table(shapes, seed=1)
    settings = {"betas": betas, "weight_decay": weight_decay}
    twin = slow.Lion(values, learning_rate=0.1, **settings, decays=is_matrix)
    _follow(values, Lion(values, **settings), twin, table, shapes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rate", [1e-5, 0.5, 3.0])
def test_lions_sign_is_a_sign(dtype, rate):
    """Tiny and huge elements move by the rate alike; zeros stay where they are."""
    tiny = np.finfo(dtype).tiny
    gradient = np.array([tiny, -tiny, 0.0, -0.0, 1e-20, 1.0, -1e20, np.finfo(dtype).max], dtype)
    values = {"w": np.zeros(8, dtype)}
    Lion(values, learning_rate=rate, betas=(0.0, 0.5)).step({"w": gradient})
    np.testing.assert_array_equal(values["w"], (-np.sign(gradient) * dtype(rate)).astype(dtype))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.98, 0.95), (0.5, 0.0)])
def test_schedule_free(table, slow, shapes, weight_decay, betas):
    values = table(shapes, seed=1)
    settings = {"betas": betas, "weight_decay": weight_decay}
    twin = slow.ScheduleFree(values, learning_rate=0.1, eps=1e-8, **settings, decays=is_matrix)
    optimizer = ScheduleFreeAdamW(values, **settings)
    _follow(values, optimizer, twin, table, shapes, tolerance=1e-11)
    optimizer.eval()
    for name, value in values.items():
        np.testing.assert_allclose(value, twin.x[name], rtol=1e-10, atol=1e-10)


def test_schedule_free_warms_up_by_itself(table, slow, shapes):
    values = table(shapes, seed=1)
    settings = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}
    twin = slow.ScheduleFree(values, learning_rate=0.1, **settings, decays=is_matrix)
    optimizer = ScheduleFreeAdamW(values, learning_rate=0.1, warmup_steps=4, **settings)
    for step in range(8):
        gradients = table(shapes, seed=step)
        optimizer.step(gradients)
        twin.step(gradients, rate=0.1 * min(1, (step + 1) / 4))
    for name, value in values.items():
        np.testing.assert_allclose(value, twin.values[name], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_muon(table, slow, nesterov, adjust, weight_decay):
    """Square, wide and tall, of both ways through Newton-Schulz; one of them split by rows."""
    shapes = {
        "embedding": (7, 5),
        "gain": (5,),
        "square": (6, 6),
        "wide": (4, 9),
        "tall": (12, 5),
        "nearly": (6, 5),
        "qkv": (12, 4),
        "one": (),
    }
    values = table(shapes, seed=1)
    settings = {"momentum": 0.9, "nesterov": nesterov, "adjust": adjust}
    settings |= {"weight_decay": weight_decay, "split": {"qkv": 3}}
    hidden = ("square", "wide", "tall", "nearly", "qkv")
    adamw = {"learning_rate": 0.1, "betas": (0.9, 0.95), "eps": 1e-8, "decays": is_matrix}
    twin = slow.Muon(values, hidden, **settings, **adamw)
    optimizer = Muon(values, **settings)
    assert optimizer.matrices == hidden
    _follow(values, optimizer, twin, table, shapes, tolerance=1e-9)


@pytest.mark.parametrize("make", [SGD, Lion, ScheduleFreeAdamW, Muon])
@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 1])
def test_borders_of_blocks_do_not_show(make, size):
    """Every element gets the update that it gets in an array of one."""
    gradient = np.linspace(-1, 1, size)
    many, alone = {"w": np.ones(size)}, {"w": np.ones(1)}
    at = size - 1
    whole, single = make(many), make(alone)
    for _ in range(3):
        whole.step({"w": gradient}, scale=0.5)
        single.step({"w": gradient[at:]}, scale=0.5)
    assert many["w"][at] == alone["w"][0]
