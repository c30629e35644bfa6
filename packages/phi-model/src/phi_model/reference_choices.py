"""Other norms, MLPs, positions and losses in the plain GPT, for experiments: what do ours buy?

Each operation stands beside its backward, as in phi_model.reference_ops; ExperimentalGPT puts the
chosen ones into ReferenceGPT. The fast path knows none of them, and no checkpoint holds them.

>>> from phi_model import ModelConfig
>>> config, choices = ModelConfig.preset("gpt-1k"), ReferenceChoices(norm="layernorm", mlp="gelu")
>>> model = ExperimentalGPT(config, new_parameters(config, choices, seed=0), choices)
>>> loss, gradients = model.loss_and_grad([[1, 2]], [[2, 3]])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from phi_model import passes
from phi_model.config import ModelConfig
from phi_model.errors import ConfigError
from phi_model.initialise import initialise
from phi_model.parameters import FlatTable
from phi_model.reference import ReferenceGPT
from phi_model.reference_ops import attend

__all__ = ["ExperimentalGPT", "ReferenceChoices", "new_parameters", "parameter_shapes"]

Array = NDArray[Any]
Kept = Any

NAMES = {
    "norm": ("rmsnorm", "layernorm"),
    "mlp": ("swiglu", "gelu", "relu"),
    "positions": ("rope", "learned", "alibi"),
}


@dataclass(frozen=True, kw_only=True)
class ReferenceChoices:
    """What differs from the GPT of the fast path; the defaults are that GPT.

    An MLP with gelu or relu has one matrix `up` [F, C] in the place of gate_up [2F, C], so it
    needs 3/2 of the n_hidden for as many parameters. Raises ConfigError.
    """

    norm: str = "rmsnorm"
    mlp: str = "swiglu"
    positions: str = "rope"
    logit_soft_cap: float = 0.0  # 0: none; Gemma 2 has 30 (arXiv:2408.00118)
    z_loss: float = 0.0  # 0: none; PaLM has 1e-4 (arXiv:2204.02311)

    def __post_init__(self) -> None:
        for field, names in NAMES.items():
            if getattr(self, field) not in names:
                raise ConfigError(
                    f"{field} is {getattr(self, field)!r}; it may be {', '.join(names)}"
                )
        for field in ("logit_soft_cap", "z_loss"):
            value = getattr(self, field)
            if type(value) not in (int, float) or not 0 <= value < float("inf"):
                raise ConfigError(f"{field} is {value!r}; it must be a number, 0 (none) or more")


def parameter_shapes(config: ModelConfig, choices: ReferenceChoices) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter that ExperimentalGPT needs."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in passes.parameter_shapes(config).items():
        if name.endswith("mlp.gate_up") and choices.mlp != "swiglu":
            shapes[name.replace("gate_up", "up")] = (config.n_hidden, config.n_embd)
            continue
        shapes[name] = shape
        if name.endswith("_norm.gain") and ".attention." not in name and choices.norm != "rmsnorm":
            shapes[name.replace("gain", "bias")] = shape
    if choices.positions == "learned":
        shapes["positions"] = (config.seq_len, config.n_embd)
    return shapes


def new_parameters(
    config: ModelConfig,
    choices: ReferenceChoices,
    *,
    seed: int = 0,
    dtype: DTypeLike = np.float32,
) -> FlatTable:
    """Parameters to start from, as phi_model.initialise makes them."""
    table = FlatTable(parameter_shapes(config, choices), dtype=dtype)
    initialise(table, config, seed=seed)
    return table


def layernorm(x: Array, gain: Array, bias: Array, eps: float) -> tuple[Array, Kept]:
    """y = gain * (x - mean) / std + bias;  x [..., C] (Ba et al. 2016, arXiv:1607.06450)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    rstd = 1 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    normed = centred * rstd
    return gain * normed + bias, (normed, gain, rstd)


def layernorm_backward(dy: Array, kept: Kept) -> tuple[Array, Array, Array]:
    normed, gain, rstd = kept
    flat = dy.reshape(-1, dy.shape[-1])
    dgain = (flat * normed.reshape(flat.shape)).sum(axis=0)
    dnormed = dy * gain
    dcentred = dnormed - normed * (dnormed * normed).mean(axis=-1, keepdims=True)
    dx = rstd * (dcentred - dnormed.mean(axis=-1, keepdims=True))
    return dx, dgain, flat.sum(axis=0)


GELU_A, GELU_B = (2 / np.pi) ** 0.5, 0.044715


def gelu(x: Array) -> tuple[Array, Kept]:
    """x times about the normal distribution's Phi(x), by tanh (arXiv:1606.08415, as in GPT-2)."""
    t = np.tanh(GELU_A * (x + GELU_B * x**3))
    return x * (1 + t) / 2, (x, t)


def gelu_backward(dy: Array, kept: Kept) -> Array:
    x, t = kept
    dt = GELU_A * (1 + 3 * GELU_B * x**2) * (1 - t**2)
    dx: Array = dy * (1 + t + x * dt) / 2
    return dx


def relu(x: Array) -> tuple[Array, Kept]:
    """x where it is positive, else 0."""
    return np.maximum(x, 0), x > 0


def relu_backward(dy: Array, kept: Kept) -> Array:
    dx: Array = dy * kept
    return dx


def soft_cap(x: Array, cap: float) -> tuple[Array, Kept]:
    """y = cap * tanh(x / cap): nearly x when it is small, never beyond cap."""
    t = np.tanh(x / cap)
    return cap * t, t


def soft_cap_backward(dy: Array, kept: Kept) -> Array:
    dx: Array = dy * (1 - kept**2)
    return dx


def z_loss(logits: Array, size: float) -> tuple[Array, Kept]:
    """size * log(sum of exp(logits))^2 for each token: keeps logits from drifting together."""
    highest = logits.max(axis=-1, keepdims=True)
    weights = np.exp(logits - highest)
    total = weights.sum(axis=-1, keepdims=True)
    log_z = np.log(total) + highest
    return size * log_z[..., 0] ** 2, (weights / total, log_z, size)


def z_loss_backward(dy: Array, kept: Kept) -> Array:
    p, log_z, size = kept
    dlogits: Array = dy[..., None] * 2 * size * log_z * p
    return dlogits


def alibi(n_head: int, length: int) -> Array:
    """-slope_h * (query - key) [H, T, T], slopes 2^(-8 h / H), h = 1 ... H (Press et al. 2022,
    arXiv:2108.12409, for H a power of 2; the same formula here for any H).
    """
    slopes = 2.0 ** (-8 * np.arange(1, n_head + 1) / n_head)
    distance = np.arange(length)[:, None] - np.arange(length)
    bias: Array = -slopes[:, None, None] * distance
    return bias


class ExperimentalGPT(ReferenceGPT):
    """ReferenceGPT with some of its operations replaced.

    config.rope_base and rope_scaling mean nothing unless positions are "rope". The loss of
    loss_and_grad includes the z-loss. Raises ConfigError for a row longer than learned positions.
    """

    def __init__(
        self, config: ModelConfig, parameters: Mapping[str, Array], choices: ReferenceChoices
    ) -> None:
        super().__init__(config, parameters)
        self.choices = choices
        if choices.mlp != "swiglu":
            self.mlp_matrix = "up"

    def embed(self, ids: Array) -> tuple[Array, Kept]:
        x, kept = super().embed(ids)
        if self.choices.positions != "learned":
            return x, kept
        if ids.shape[1] > self.config.seq_len:
            raise ConfigError(
                f"a row has {ids.shape[1]} tokens; there are {self.config.seq_len} learned "
                "positions: shorten it, or raise seq_len"
            )
        return x + self.parameters["positions"][: ids.shape[1]], kept

    def embed_backward(self, dy: Array, kept: Kept) -> dict[str, Array]:
        g = super().embed_backward(dy, kept)
        if self.choices.positions == "learned":
            g["positions"] = np.zeros_like(self.parameters["positions"])
            g["positions"][: dy.shape[1]] = dy.sum(axis=0)
        return g

    def norm(self, x: Array, name: str) -> tuple[Array, Kept]:
        if self.choices.norm == "rmsnorm":
            return super().norm(x, name)
        p = self.parameters
        return layernorm(x, p[f"{name}.gain"], p[f"{name}.bias"], self.config.norm_eps)

    def norm_backward(self, dy: Array, kept: Kept, name: str, g: dict[str, Array]) -> Array:
        if self.choices.norm == "rmsnorm":
            return super().norm_backward(dy, kept, name, g)
        dx, g[f"{name}.gain"], g[f"{name}.bias"] = layernorm_backward(dy, kept)
        return dx

    def activate(self, up: Array) -> tuple[Array, Kept]:
        known = {"swiglu": super().activate, "gelu": gelu, "relu": relu}
        return known[self.choices.mlp](up)

    def activate_backward(self, dy: Array, kept: Kept) -> Array:
        known = {
            "swiglu": super().activate_backward,
            "gelu": gelu_backward,
            "relu": relu_backward,
        }
        return known[self.choices.mlp](dy, kept)

    def turn(self, x: Array) -> tuple[Array, Kept]:
        return super().turn(x) if self.choices.positions == "rope" else (x, None)

    def turn_backward(self, dy: Array, kept: Kept) -> Array:
        return super().turn_backward(dy, kept) if self.choices.positions == "rope" else dy

    def attend(self, q: Array, k: Array, v: Array) -> tuple[Array, Kept]:
        if self.choices.positions != "alibi":
            return super().attend(q, k, v)
        return attend(q, k, v, alibi(self.config.n_head, q.shape[2]).astype(q.dtype))

    def forward(self, ids: Array) -> tuple[Array, Kept]:
        logits, kept = super().forward(ids)
        if not self.choices.logit_soft_cap:
            return logits, (kept, None)
        capped, kept_cap = soft_cap(logits, self.choices.logit_soft_cap)
        return capped, (kept, kept_cap)

    def backward(self, dlogits: Array, kept: Kept) -> dict[str, Array]:
        kept_model, kept_cap = kept
        if self.choices.logit_soft_cap:
            dlogits = soft_cap_backward(dlogits, kept_cap)
        return super().backward(dlogits, kept_model)

    def losses(self, logits: Array, targets: Array) -> tuple[Array, Kept]:
        losses, kept = super().losses(logits, targets)
        further, kept_z = z_loss(logits, self.choices.z_loss)
        return losses + further, (kept, kept_z)

    def losses_backward(self, dlosses: Array, kept: Kept) -> Array:
        kept_losses, kept_z = kept
        return super().losses_backward(dlosses, kept_losses) + z_loss_backward(dlosses, kept_z)
