"""What several tests share: models whose every parameter matters, and batches for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from phi_model import GPT, ModelConfig

Array = NDArray[Any]


def _lively_model(config: ModelConfig, *, seed: int = 0, dtype: DTypeLike = np.float32) -> GPT:
    model = GPT(config, dtype=dtype)
    rng = np.random.default_rng(seed)
    for name, value in model.parameters.items():
        normal = rng.standard_normal(value.shape)
        if name.endswith(".gain"):
            value[...] = 1 + normal / 4
        else:  # an embedding of size 1: a smaller one makes the first norm bend sharply
            value[...] = normal * (1 if name == "embedding" else value.shape[1] ** -0.5)
    return model


def _batch(config: ModelConfig, batch: int, length: int, *, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(0, config.vocab_size, (2, batch, length)))


@pytest.fixture(scope="session")
def lively_model() -> Callable[..., GPT]:
    """A model far from its start: residual branches of full size, gains that differ.

    (A new model's residual branches are a hundredth of that, and an error there could hide.)
    """
    return _lively_model


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., tuple[Array, Array]]:
    """Random ids and targets [batch, length] for a config."""
    return _batch
