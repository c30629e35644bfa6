"""What several tests need: a flat table like a model's, and slow twins to compare with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

SHAPES = {"embedding": (7, 5), "layer.gain": (5,), "layer.weight": (5, 5), "bias": (3,), "one": ()}


class Flat(Mapping):
    """name -> view of one buffer, in the order given, with a gap of `gap` zeros after each."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: Any, gap: int = 3) -> None:
        self.ranges = {}
        end = 0
        for name, shape in shapes.items():
            size = math.prod(shape)
            self.ranges[name] = (end, end + size)
            end += size + gap
        self.flat = np.zeros(end, dtype)
        self._views = {
            name: self.flat[slice(*self.ranges[name])].reshape(shape)
            for name, shape in shapes.items()
        }

    def __getitem__(self, name: str) -> np.ndarray:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)


class SlowAdamW:
    """The three lines of the paper, element by element, in float64."""

    def __init__(self, values, *, learning_rate, betas, eps, weight_decay, decays):
        self.values = {name: np.array(v, np.float64) for name, v in values.items()}
        self.m = {name: np.zeros(v.shape) for name, v in values.items()}
        self.v = {name: np.zeros(v.shape) for name, v in values.items()}
        self.rate, self.betas, self.eps = learning_rate, betas, eps
        self.weight_decay, self.decays, self.t = weight_decay, decays, 0

    def step(self, gradients, *, rate=None, scale=1.0):
        rate = self.rate if rate is None else rate
        b1, b2 = self.betas
        self.t += 1
        for name, p in self.values.items():
            decay = self.weight_decay if self.decays(name, p) else 0.0
            for i in np.ndindex(p.shape):
                g = float(gradients[name][i]) * scale
                self.m[name][i] = b1 * self.m[name][i] + (1 - b1) * g
                self.v[name][i] = b2 * self.v[name][i] + (1 - b2) * g * g
                m_hat = self.m[name][i] / (1 - b1**self.t)
                v_hat = self.v[name][i] / (1 - b2**self.t)
                p[i] -= rate * decay * p[i] + rate * m_hat / (math.sqrt(v_hat) + self.eps)


class SlowSGD:
    """Momentum as in Sutskever et al., in torch's form, with decoupled decay."""

    def __init__(self, values, *, learning_rate, momentum, nesterov, weight_decay, decays):
        self.values = {name: np.array(v, np.float64) for name, v in values.items()}
        self.m = {name: np.zeros(v.shape) for name, v in values.items()}
        self.rate, self.mu, self.nesterov = learning_rate, momentum, nesterov
        self.weight_decay, self.decays = weight_decay, decays

    def step(self, gradients, *, rate=None, scale=1.0):
        rate = self.rate if rate is None else rate
        for name, p in self.values.items():
            decay = self.weight_decay if self.decays(name, p) else 0.0
            for i in np.ndindex(p.shape):
                g = float(gradients[name][i]) * scale
                self.m[name][i] = self.mu * self.m[name][i] + g
                direction = g + self.mu * self.m[name][i] if self.nesterov else self.m[name][i]
                p[i] -= rate * decay * p[i] + rate * direction


class SlowLion:
    """Algorithm 2 of the paper, element by element, in float64."""

    def __init__(self, values, *, learning_rate, betas, weight_decay, decays):
        self.values = {name: np.array(v, np.float64) for name, v in values.items()}
        self.m = {name: np.zeros(v.shape) for name, v in values.items()}
        self.rate, self.betas = learning_rate, betas
        self.weight_decay, self.decays = weight_decay, decays

    def step(self, gradients, *, rate=None, scale=1.0):
        rate = self.rate if rate is None else rate
        b1, b2 = self.betas
        for name, p in self.values.items():
            decay = self.weight_decay if self.decays(name, p) else 0.0
            for i in np.ndindex(p.shape):
                g = float(gradients[name][i]) * scale
                c = b1 * self.m[name][i] + (1 - b1) * g
                sign = int(c > 0) - int(c < 0)
                self.m[name][i] = b2 * self.m[name][i] + (1 - b2) * g
                p[i] -= rate * (sign + decay * p[i])


class SlowScheduleFree:
    """The three sequences of the paper, all of them kept; gradients are those at y."""

    def __init__(self, values, *, learning_rate, betas, eps, weight_decay, decays):
        self.z = {name: np.array(v, np.float64) for name, v in values.items()}
        self.x = {name: v.copy() for name, v in self.z.items()}
        self.values = {name: v.copy() for name, v in self.z.items()}  # y
        self.v = {name: np.zeros(v.shape) for name, v in values.items()}
        self.rate, self.betas, self.eps = learning_rate, betas, eps
        self.weight_decay, self.decays, self.t = weight_decay, decays, 0
        self.rates = []

    def step(self, gradients, *, rate=None, scale=1.0):
        rate = self.rate if rate is None else rate
        b1, b2 = self.betas
        self.t += 1
        self.rates.append(rate)
        weights = [max(self.rates[: i + 1]) ** 2 for i in range(self.t)]
        c = weights[-1] / sum(weights)
        for name, y in self.values.items():
            decay = self.weight_decay if self.decays(name, y) else 0.0
            x, z, v = self.x[name], self.z[name], self.v[name]
            for i in np.ndindex(y.shape):
                g = float(gradients[name][i]) * scale
                v[i] = b2 * v[i] + (1 - b2) * g * g
                v_hat = v[i] / (1 - b2**self.t)
                z[i] -= rate * (g / (math.sqrt(v_hat) + self.eps) + decay * y[i])
                x[i] = (1 - c) * x[i] + c * z[i]
                y[i] = b1 * x[i] + (1 - b1) * z[i]


class SlowMuon:
    """Newton-Schulz as published, on the matrices called `hidden`; SlowAdamW on the rest."""

    def __init__(
        self, values, hidden, *, momentum, nesterov, adjust, weight_decay, split=None, **adamw
    ):
        rest = {name: v for name, v in values.items() if name not in hidden}
        self.rest = SlowAdamW(rest, weight_decay=weight_decay, **adamw)
        self.own = {name: np.array(values[name], np.float64) for name in hidden}
        self.m = {name: np.zeros(v.shape) for name, v in self.own.items()}
        self.values = self.own | self.rest.values
        self.rate, self.mu, self.nesterov = adamw["learning_rate"], momentum, nesterov
        self.adjust, self.weight_decay, self.split = adjust, weight_decay, split or {}

    def step(self, gradients, *, rate=None, scale=1.0):
        rate = self.rate if rate is None else rate
        self.rest.step({name: gradients[name] for name in self.rest.values}, rate=rate, scale=scale)
        for name, p in self.own.items():
            g = np.array(gradients[name], np.float64) * scale
            self.m[name] = self.mu * self.m[name] + (1 - self.mu) * g
            u = (1 - self.mu) * g + self.mu * self.m[name] if self.nesterov else self.m[name]
            blocks = np.split(u, self.split.get(name, 1))
            update = np.concatenate([self.size(b) * newton_schulz(b) for b in blocks])
            p[...] = p - rate * self.weight_decay * p - rate * update

    def size(self, block):
        rows, columns = block.shape
        if self.adjust == "original":
            return max(1, rows / columns) ** 0.5
        return 0.2 * max(rows, columns) ** 0.5


def newton_schulz(u, steps=5, eps=1e-7):
    """X <- a X + (b A + c A A) X, A = X X^T, on the wide side, in float64."""
    a, b, c = 3.4445, -4.775, 2.0315
    x = np.array(u if u.shape[0] <= u.shape[1] else u.T, np.float64)
    x /= max(np.sqrt((x * x).sum()), eps)
    for _ in range(steps):
        gram = np.einsum("ik,jk->ij", x, x)
        x = (
            a * x
            + b * np.einsum("ij,jk->ik", gram, x)
            + c * np.einsum("ij,jl,lk->ik", gram, gram, x)
        )
    return x if u.shape[0] <= u.shape[1] else x.T


@pytest.fixture
def shapes() -> dict[str, tuple[int, ...]]:
    """Matrices and vectors in turn, so that a flat table has several stretches."""
    return dict(SHAPES)


@pytest.fixture(params=["dict", "flat"])
def table(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes a table of arrays: a plain dict, or one flat buffer with `flat` and `ranges`."""

    def make(
        shapes: Mapping[str, tuple[int, ...]], dtype: Any = np.float64, seed: int | None = None
    ) -> Any:
        if request.param == "dict":
            made = {name: np.zeros(shape, dtype) for name, shape in shapes.items()}
        else:
            made = Flat(shapes, dtype)
        if seed is not None:
            rng = np.random.default_rng(seed)
            for name, shape in shapes.items():
                made[name][...] = rng.standard_normal(shape)
        return made

    return make


@pytest.fixture
def slow() -> Any:
    """The slow twins, and Flat: test modules cannot import each other."""
    return SimpleNamespace(
        AdamW=SlowAdamW,
        SGD=SlowSGD,
        Lion=SlowLion,
        ScheduleFree=SlowScheduleFree,
        Muon=SlowMuon,
        newton_schulz=newton_schulz,
        Flat=Flat,
    )
