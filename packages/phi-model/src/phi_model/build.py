"""From a config to the model it describes."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from phi_model.config import ModelConfig
from phi_model.gpt import GPT

__all__ = ["build_model"]


def build_model(config: ModelConfig, *, seed: int = 0, dtype: DTypeLike = np.float32) -> GPT:
    """A new model of config.kind with weights initialised from `seed`."""
    return GPT(config, seed=seed, dtype=dtype)
