"""The weights a model starts from.

Embedding N(0, 0.05); matrices N(0, 0.5 / sqrt(fan-in)); matrices that write into the residual
stream a hundredth of that, so that every layer starts near the identity (residual_init "small"),
or 1 / sqrt(2 n_layer) of theirs, so that the stream does not grow with depth ("scaled", Radford et
al. 2019, GPT-2: 2 n_layer sublayers add to it); gains 1, biases 0.
"""

from __future__ import annotations

import numpy as np

from phi_model.config import ModelConfig
from phi_model.parameters import FlatTable

__all__ = ["initialise"]

EMBEDDING_STD = 0.05
MATRIX_GAIN = 0.5
RESIDUAL_GAIN = 0.005


def initialise(parameters: FlatTable, config: ModelConfig, *, seed: int) -> None:
    """Fills `parameters` from `seed`; float32 and float64 models start from equal weights."""
    rng = np.random.Generator(np.random.PCG64(seed))
    for name, value in parameters.items():
        if name.endswith(".gain"):
            value[:] = 1
        elif name.endswith(".bias"):
            value[:] = 0
        else:
            normal = rng.standard_normal(value.shape, dtype=np.float32)
            value[...] = normal * np.float32(_std(name, value.shape[1], config))


def _std(name: str, fan_in: int, config: ModelConfig) -> float:
    if name in ("embedding", "positions"):
        return EMBEDDING_STD
    writes_residual = name.endswith(("attention.out", "mlp.down"))
    return float((residual_gain(config) if writes_residual else MATRIX_GAIN) * fan_in**-0.5)


def residual_gain(config: ModelConfig) -> float:
    """Of matrices that write into the residual stream: std times sqrt(fan-in)."""
    if config.residual_init == "small":
        return RESIDUAL_GAIN
    return float(MATRIX_GAIN * (2 * config.n_layer) ** -0.5)
