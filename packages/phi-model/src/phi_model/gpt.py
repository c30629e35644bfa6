"""A GPT with its gradients by hand, in numpy: RMSNorm, RoPE, causal attention, SwiGLU.

Knows token ids, not text; computes gradients, not updates. phi_model.reference is the same
model without workspaces, slower and easier to read.

>>> import numpy as np
>>> from phi_model import GPT, ModelConfig
>>> model = GPT(ModelConfig.preset("gpt-1k"), seed=0)
>>> ids = np.array([[1, 2, 3]])
>>> loss = model.loss_and_grad(ids[:, :-1], ids[:, 1:])
>>> model.gradients["embedding"].shape
(1024, 8)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from phi_model.config import ModelConfig
from phi_model.cross_entropy import cross_entropy, cross_entropy_backward
from phi_model.embedding import embed, embed_backward
from phi_model.errors import ConfigError
from phi_model.initialise import initialise
from phi_model.layer import (
    attention_sublayer,
    attention_sublayer_backward,
    mlp_sublayer,
    mlp_sublayer_backward,
)
from phi_model.norm import rmsnorm, rmsnorm_backward
from phi_model.parameters import FlatTable
from phi_model.workspace import Workspace

__all__ = ["GPT", "as_batch", "parameter_shapes"]

Array = NDArray[Any]


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter; matrices are [out, in]."""
    c, f, v = config.n_embd, config.n_hidden, config.vocab_size
    shapes: dict[str, tuple[int, ...]] = {"embedding": (v, c)}
    for i in range(config.n_layer):
        shapes |= {
            f"layers.{i}.attention_norm.gain": (c,),
            f"layers.{i}.attention.qkv": (3 * c, c),  # rows: all of q, then k, then v
            f"layers.{i}.attention.out": (c, c),
            f"layers.{i}.mlp_norm.gain": (c,),
            f"layers.{i}.mlp.gate_up": (2 * f, c),  # rows: gate, then up
            f"layers.{i}.mlp.down": (c, f),
        }
    shapes["final_norm.gain"] = (c,)
    return shapes if config.tied_head else shapes | {"head": (v, c)}


def as_batch(name: str, values: ArrayLike, upper: int) -> Array:
    """`values` as whole numbers [B, T] in [0, upper); a vector is a batch of one row."""
    array = np.atleast_2d(np.asarray(values))
    if array.ndim != 2 or array.size == 0:
        raise ConfigError(f"{name} has shape {array.shape}; it must be [B, T], neither of them 0")
    if array.dtype.kind not in "iu":
        raise ConfigError(f"{name} holds {array.dtype}; token ids are whole numbers")
    if array.min() < 0 or array.max() >= upper:
        raise ConfigError(
            f"{name} holds an id outside 0..{upper - 1} (from {array.min()} to {array.max()}): "
            "the tokenizer and the model's vocab_size do not belong together"
        )
    return array.astype(np.intp, copy=False)


class GPT:
    """Parameters, gradients and the passes over them.

    `parameters` and `gradients` map names to views of one flat buffer each.
    dtype is float32, or float64 for checking gradients.
    """

    def __init__(
        self, config: ModelConfig, *, seed: int = 0, dtype: DTypeLike = np.float32
    ) -> None:
        self.config = config
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise ConfigError(f"dtype is {self.dtype}; a model computes in float32 or float64")
        self.parameters = FlatTable(parameter_shapes(config), dtype=self.dtype)
        initialise(self.parameters, seed=seed)
        self._gradients: FlatTable | None = None
        self._workspaces: dict[bool, Workspace] = {}

    @property
    def gradients(self) -> FlatTable:
        """Gradients of the last loss_and_grad; zeros before the first."""
        if self._gradients is None:
            self._gradients = self.parameters.like()
        return self._gradients

    def loss(self, ids: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None) -> float:
        """Mean cross-entropy in nats a token; see loss_and_grad for weights."""
        losses = -self.token_log_probs(ids, targets)
        factor = self._token_factors(losses.shape, weights).reshape(losses.shape)
        return float((losses * factor).sum(dtype=np.float64))

    def token_log_probs(self, ids: ArrayLike, targets: ArrayLike) -> Array:
        """log p(target) [B, T] in nats for ids, targets [B, T]."""
        ids, targets = self._checked(ids, targets)
        ws = self._forward(ids, keep=False)
        return -cross_entropy(ws.logits, targets.ravel(), total=ws.total).reshape(ids.shape)

    def logits(self, ids: ArrayLike) -> Array:
        """Logits [B, T, V] for ids [B, T], a copy."""
        ids = as_batch("ids", ids, self.config.vocab_size)
        ws = self._forward(ids, keep=False)
        return ws.logits.T.reshape(*ids.shape, self.config.vocab_size).copy()

    def loss_and_grad(
        self, ids: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None
    ) -> float:
        """The loss in nats a token, its gradient left in `gradients` (overwritten).

        ids, targets: whole numbers [B, T]. weights [B, T], any real numbers:
        loss = sum(weights * losses) / (number of weights that are not 0), so a mask of zeros
        and ones gives the mean over the ones, and the gradient is linear in the weights.
        """
        ids, targets = self._checked(ids, targets)
        ws = self._forward(ids, keep=True)
        losses = cross_entropy(ws.logits, targets.ravel(), total=ws.total)
        factors = self._token_factors(ids.shape, weights)
        self._backward(ws, ids.ravel(), targets.ravel(), factors)
        return float(np.dot(losses.astype(np.float64), factors))

    def _checked(self, ids: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
        ids = as_batch("ids", ids, self.config.vocab_size)
        targets = as_batch("targets", targets, self.config.vocab_size)
        if ids.shape != targets.shape:
            raise ConfigError(f"ids are {ids.shape}, targets {targets.shape}: they must agree")
        return ids, targets

    def _token_factors(self, shape: tuple[int, ...], weights: ArrayLike | None) -> Array:
        """What each token's loss is multiplied by [N], float64."""
        if weights is None:
            n = int(np.prod(shape))
            return np.full(n, 1.0 / n)
        array = np.asarray(weights, dtype=np.float64)
        if array.shape != shape and array.size != np.prod(shape):
            raise ConfigError(f"weights have shape {array.shape}, ids {shape}: they must agree")
        if not np.isfinite(array).all():
            raise ConfigError("weights hold a NaN or an infinity")
        return array.ravel() / max(1, int(np.count_nonzero(array)))

    def _workspace(self, batch: int, length: int, *, keep: bool) -> Workspace:
        """One workspace for training and one for everything else, renewed when shapes change."""
        ws = self._workspaces.get(keep)
        if ws is None or (ws.batch, ws.length) != (batch, length):
            self._workspaces.pop(keep, None)
            ws = Workspace(self.config, batch, length, dtype=self.dtype, keep=keep)
            self._workspaces[keep] = ws
        return ws

    @property
    def _head_name(self) -> str:
        return "embedding" if self.config.tied_head else "head"

    def _forward(self, ids: Array, *, keep: bool) -> Workspace:
        """Runs ids [B, T] up to ws.logits [V, N]."""
        p = self.parameters
        ws = self._workspace(*ids.shape, keep=keep)
        embed(ids.ravel(), p["embedding"], x=ws.layers[0].x)
        for i, kept in enumerate(ws.layers):
            is_last = i == self.config.n_layer - 1
            attention_sublayer(ws, kept, p, i)
            mlp_sublayer(ws, kept, p, i, x_out=ws.x_final if is_last else ws.layers[i + 1].x)
        rmsnorm(
            ws.x_final,
            p["final_norm.gain"],
            self.config.norm_eps,
            y=ws.h_final,
            rrms=ws.rrms_final,
        )
        np.matmul(p[self._head_name], ws.h_final, out=ws.logits)
        return ws

    def _backward(self, ws: Workspace, ids: Array, targets: Array, factors: Array) -> None:
        """Writes every gradient once; only the embedding's is then added to.

        A tied head writes the embedding's gradient; otherwise it starts from zero. So nothing of
        the step before survives.
        """
        p, g = self.parameters, self.gradients
        cross_entropy_backward(
            ws.logits,
            ws.total,
            targets,
            factors.astype(self.dtype),
            ws.h_final,
            p[self._head_name],
            dh=ws.dh,
            dweight=g[self._head_name],
        )
        ws.dx[:] = 0
        rmsnorm_backward(
            ws.dh,
            ws.x_final,
            p["final_norm.gain"],
            ws.rrms_final,
            dx=ws.dx,
            dgain=g["final_norm.gain"],
            scratch=ws.scratch,
        )
        for i in reversed(range(self.config.n_layer)):
            mlp_sublayer_backward(ws, ws.layers[i], p, g, i)
            attention_sublayer_backward(ws, ws.layers[i], p, g, i)
        if not self.config.tied_head:
            g["embedding"][:] = 0
        embed_backward(ws.dx, ids, dweight=g["embedding"])
