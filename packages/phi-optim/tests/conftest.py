"""What several tests need: a flat table like a model's, and a slow AdamW to compare with."""

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
    """SlowAdamW, Flat: test modules cannot import each other."""
    return SimpleNamespace(AdamW=SlowAdamW, Flat=Flat)
