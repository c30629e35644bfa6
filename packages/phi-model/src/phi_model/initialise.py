"""The weights a model starts from.

Embedding N(0, 0.05); matrices N(0, 0.5 / sqrt(fan-in)); matrices that write into the residual
stream a hundredth of that, so that every layer starts near the identity; gains 1.
"""

from __future__ import annotations

import numpy as np

from phi_model.parameters import FlatTable

__all__ = ["initialise"]

EMBEDDING_STD = 0.05
MATRIX_GAIN = 0.5
RESIDUAL_GAIN = 0.005


def initialise(parameters: FlatTable, *, seed: int) -> None:
    """Fills `parameters` from `seed`; float32 and float64 models start from equal weights."""
    rng = np.random.Generator(np.random.PCG64(seed))
    for name, value in parameters.items():
        if name.endswith(".gain"):
            value[:] = 1
        else:
            normal = rng.standard_normal(value.shape, dtype=np.float32)
            value[...] = normal * np.float32(_std(name, value.shape[1]))


def _std(name: str, fan_in: int) -> float:
    if name == "embedding":
        return EMBEDDING_STD
    writes_residual = name.endswith(("attention.out", "mlp.down"))
    return float((RESIDUAL_GAIN if writes_residual else MATRIX_GAIN) * fan_in**-0.5)
