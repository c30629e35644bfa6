"""From a config to the model it describes."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from phi_model.config import ModelConfig
from phi_model.gpt import GPT
from phi_model.language_model import LanguageModel
from phi_model.passes import parameter_shapes as gpt_parameter_shapes
from phi_model.rwkv7.model import RWKV7
from phi_model.rwkv7.parameters import rwkv7_parameter_shapes

__all__ = ["build_model", "parameter_shapes"]


def build_model(
    config: ModelConfig, *, seed: int = 0, dtype: DTypeLike = np.float32
) -> LanguageModel:
    """A new model of config.kind with weights initialised from `seed`."""
    model = RWKV7 if config.kind == "rwkv7" else GPT
    return model(config, seed=seed, dtype=dtype)


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter of a model of config.kind."""
    if config.kind == "rwkv7":
        return rwkv7_parameter_shapes(config)
    return gpt_parameter_shapes(config)
