"""The weights that an RWKV-7 starts from, as in its authors' training code.

With p = l / (L - 1) and q = 1 - l / L for layer l of L, and channel i of C:

    mixes       1 - (i / C)^(e q), e by kind;  channel mix 1 - (i / C)^(q^4)
    decay       -6 + 6 (i / (C - 1))^(1 + p^0.3) + 1/2 + 2.5 zigzag, zigzag within a head
    LoRA        down 0, up orthogonal with gain 0.1
    matrices    orthogonal: receptance and value 1, key 0.1, channel mix's key 1; those that write
                into the residual stream 0, so that every layer starts as the identity
    embedding   U(-1e-4, 1e-4): a norm follows it; a head, tied or not, orthogonal

The authors never tie the head; a tied one starts as a head, since the norm takes the
embedding's size away again. Source: arXiv:2503.14456, and the code that came with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_model.config import ModelConfig
from phi_model.parameters import FlatTable
from phi_model.rwkv7.parameters import MIXES

__all__ = ["initialise_rwkv7"]

Array = NDArray[Any]

EXPONENTS = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}
ZERO = ("time_mix.output", "channel_mix.value", "_down")
GAINS = {"receptance": 1.0, "time_mix.key": 0.1, "time_mix.value": 1.0, "channel_mix.key": 1.0}


def initialise_rwkv7(parameters: FlatTable, config: ModelConfig, *, seed: int) -> None:
    """Fills `parameters` from `seed`; float32 and float64 models start from equal weights."""
    rng = np.random.Generator(np.random.PCG64(seed))
    vectors = [_layer_vectors(config, i) for i in range(config.n_layer)]
    for name, value in parameters.items():
        if value.ndim == 2:
            value[...] = _matrix(name, value.shape, config, rng).astype(np.float32)
        elif name.startswith("layers."):
            _, layer, rest = name.split(".", 2)
            value[...] = np.float32(vectors[int(layer)].get(rest, _norm(rest)))
        else:
            value[...] = _norm(name)


def _norm(name: str) -> float:
    return 1.0 if name.endswith(".gain") else 0.0


def _matrix(
    name: str, shape: tuple[int, ...], config: ModelConfig, rng: np.random.Generator
) -> Array:
    if name == "head" or (name == "embedding" and config.tied_head):
        ratio = config.vocab_size / config.n_embd
        return _orthogonal(rng, shape, 0.5 * max(1.0, ratio) ** 0.5)
    if name == "embedding":
        return rng.uniform(-1e-4, 1e-4, shape)
    if name.endswith(ZERO):
        return np.zeros(shape)
    if name.endswith("_up"):
        # the authors hold it as [rank, C] and enlarge it where rows exceed columns
        return _orthogonal(rng, shape, 0.1 * max(1.0, shape[1] / shape[0]) ** 0.5)
    gain = next(gain for end, gain in GAINS.items() if name.endswith(end))
    return _orthogonal(rng, shape, gain)


def _orthogonal(rng: np.random.Generator, shape: tuple[int, ...], gain: float) -> Array:
    """`gain` times orthonormal rows, or columns where fewer (Saxe et al., arXiv:1312.6120)."""
    rows, columns = shape
    q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
    q *= gain * np.sign(np.diag(r))
    return q if rows >= columns else q.T


def _layer_vectors(config: ModelConfig, layer: int) -> dict[str, Array | float]:
    """name within the layer -> value, of what is not a matrix, 1 or 0."""
    c, n, d = config.n_embd, config.n_layer, config.head_size
    i = np.arange(c)
    p = layer / (n - 1) if n > 1 else 0.0
    q = 1 - layer / n
    along = i / max(1, c - 1)
    linear = along - 0.5
    z = (i % d - (d - 1) / 2) / max(0.5, (d - 1) / 2)
    zigzag = z * np.abs(z)
    values: dict[str, Array | float] = {
        f"time_mix.mix_{name}": 1 - (i / c) ** (EXPONENTS[name] * q) for name in MIXES
    }
    return values | {
        "time_mix.w_bias": -6 + 6 * along ** (1 + p**0.3) + 0.5 + 2.5 * zigzag,
        "time_mix.a_bias": -0.19 + 0.3 * zigzag + 0.4 * linear,
        "time_mix.v_bias": 0.73 - 0.4 * linear,
        "time_mix.k_k": 0.71 - 0.1 * linear,
        "time_mix.k_a": 1.02,
        "time_mix.r_k": -0.04,
        "time_mix.head_norm.gain": ((1 + layer) / n) ** 0.7,
        "channel_mix.mix_k": 1 - (i / c) ** (q**4),
    }
