"""The same GPT, as plainly as it can be written: for people to learn from and tests to trust.

Arrays are token-major, [B, T, C]. Every operation is a function y, kept = op(x, ...) with its
op_backward(dy, kept) beside it, in phi_model.reference_ops; here they become a model. No
workspace, no fused step, no trick; slower and hungrier than phi_model.gpt, and equal to it up to
rounding. docs/gradients.md derives every backward line. phi_model.reference_choices has other
norms, MLPs, positions and losses to put into it.

>>> from phi_model import GPT, ModelConfig
>>> model = GPT(ModelConfig.preset("gpt-1k"))
>>> reference = ReferenceGPT(model.config, model.parameters)
>>> loss, gradients = reference.loss_and_grad([[1, 2]], [[2, 3]])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phi_model.config import ModelConfig
from phi_model.reference_ops import (
    attend,
    attend_backward,
    cross_entropy,
    cross_entropy_backward,
    embed,
    embed_backward,
    linear,
    linear_backward,
    rmsnorm,
    rmsnorm_backward,
    rope,
    rope_backward,
    share_heads,
    share_heads_backward,
    swiglu,
    swiglu_backward,
)

__all__ = ["ReferenceGPT"]

Array = NDArray[Any]
Kept = Any


class ReferenceGPT:
    """A GPT over a table of parameters; computes in their dtype.

    Raises KeyError when a parameter that `config` needs is missing. The methods in pairs,
    norm and norm_backward and so on, are there to be replaced in a subclass.
    """

    mlp_matrix = "gate_up"  # what makes the hidden layer's input

    def __init__(self, config: ModelConfig, parameters: Mapping[str, Array]) -> None:
        self.config = config
        self.parameters = parameters

    def logits(self, ids: ArrayLike) -> Array:
        """Logits [B, T, V] for ids [B, T]."""
        logits, _ = self.forward(np.atleast_2d(np.asarray(ids)))
        return logits

    def loss_and_grad(
        self, ids: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None
    ) -> tuple[float, dict[str, Array]]:
        """The loss and its gradient by name; weights as in GPT.loss_and_grad."""
        ids, targets = np.atleast_2d(np.asarray(ids)), np.atleast_2d(np.asarray(targets))
        logits, kept = self.forward(ids)
        factors = np.ones(ids.shape) if weights is None else np.asarray(weights, float)
        factors = (factors / max(1, int(np.count_nonzero(factors)))).astype(logits.dtype)
        losses, kept_loss = self.losses(logits, targets)
        gradients = self.backward(self.losses_backward(factors, kept_loss), kept)
        return float((losses * factors).sum()), gradients

    def forward(self, ids: Array) -> tuple[Array, Kept]:
        """Logits [B, T, V] and everything that backward needs."""
        x, kept_embed = self.embed(ids)
        kept_layers = []
        for i in range(self.config.n_layer):
            x, kept_attention = self.attention_sublayer(x, i)
            x, kept_mlp = self.mlp_sublayer(x, i)
            kept_layers.append((kept_attention, kept_mlp))
        h, kept_norm = self.norm(x, "final_norm")
        logits, kept_head = linear(h, self.parameters[self.config.head_name])
        return logits, (kept_embed, kept_layers, kept_norm, kept_head)

    def backward(self, dlogits: Array, kept: Kept) -> dict[str, Array]:
        """Gradients by name, newly made: nothing of an earlier step can be in them."""
        kept_embed, kept_layers, kept_norm, kept_head = kept
        g: dict[str, Array] = {}
        dh, dhead = linear_backward(dlogits, kept_head)
        dx = self.norm_backward(dh, kept_norm, "final_norm", g)
        for i in reversed(range(self.config.n_layer)):
            kept_attention, kept_mlp = kept_layers[i]
            dx = self.mlp_sublayer_backward(dx, kept_mlp, i, g)
            dx = self.attention_sublayer_backward(dx, kept_attention, i, g)
        g |= self.embed_backward(dx, kept_embed)
        head = self.config.head_name
        g[head] = g.get(head, 0) + dhead  # tied: the embedding has two uses
        return g

    def attention_sublayer(self, x: Array, i: int) -> tuple[Array, Kept]:
        """x + out attend(rope(qkv norm(x)))."""
        p, c = self.parameters, self.config
        h, kept_norm = self.norm(x, f"layers.{i}.attention_norm")
        qkv, kept_qkv = linear(h, p[f"layers.{i}.attention.qkv"])
        parts = np.split(qkv, [c.n_embd, c.n_embd + c.n_kv_embd], axis=-1)
        q, k, v = (self._split_heads(part) for part in parts)
        q, kept_q = self.place(q, f"layers.{i}.attention.q_norm.gain")
        k, kept_k = self.place(k, f"layers.{i}.attention.k_norm.gain")
        k, v = (share_heads(part, c.n_group)[0] for part in (k, v))
        attended, kept_attend = self.attend(q, k, v)
        y, kept_out = linear(self._join_heads(attended), p[f"layers.{i}.attention.out"])
        return x + y, (kept_norm, kept_qkv, kept_q, kept_k, kept_attend, kept_out)

    def attention_sublayer_backward(
        self, dy: Array, kept: Kept, i: int, g: dict[str, Array]
    ) -> Array:
        """The gradient of the sublayer's input; adds the parameters' gradients to g."""
        kept_norm, kept_qkv, kept_q, kept_k, kept_attend, kept_out = kept
        dattended, g[f"layers.{i}.attention.out"] = linear_backward(dy, kept_out)
        dq, dk, dv = attend_backward(self._split_heads(dattended), kept_attend)
        dk, dv = (share_heads_backward(part, self.config.n_group) for part in (dk, dv))
        dq = self.place_backward(dq, kept_q, f"layers.{i}.attention.q_norm.gain", g)
        dk = self.place_backward(dk, kept_k, f"layers.{i}.attention.k_norm.gain", g)
        dqkv = np.concatenate([self._join_heads(part) for part in (dq, dk, dv)], axis=-1)
        dh, g[f"layers.{i}.attention.qkv"] = linear_backward(dqkv, kept_qkv)
        dx = self.norm_backward(dh, kept_norm, f"layers.{i}.attention_norm", g)
        return dy + dx

    def mlp_sublayer(self, x: Array, i: int) -> tuple[Array, Kept]:
        """x + down swiglu(gate_up norm(x))."""
        p = self.parameters
        h, kept_norm = self.norm(x, f"layers.{i}.mlp_norm")
        gate_up, kept_gate_up = linear(h, p[f"layers.{i}.mlp.{self.mlp_matrix}"])
        hidden, kept_swiglu = self.activate(gate_up)
        y, kept_down = linear(hidden, p[f"layers.{i}.mlp.down"])
        return x + y, (kept_norm, kept_gate_up, kept_swiglu, kept_down)

    def mlp_sublayer_backward(self, dy: Array, kept: Kept, i: int, g: dict[str, Array]) -> Array:
        """The gradient of the sublayer's input; adds the parameters' gradients to g."""
        kept_norm, kept_gate_up, kept_swiglu, kept_down = kept
        dhidden, g[f"layers.{i}.mlp.down"] = linear_backward(dy, kept_down)
        dgate_up = self.activate_backward(dhidden, kept_swiglu)
        dh, g[f"layers.{i}.mlp.{self.mlp_matrix}"] = linear_backward(dgate_up, kept_gate_up)
        dx = self.norm_backward(dh, kept_norm, f"layers.{i}.mlp_norm", g)
        return dy + dx

    # what a subclass may replace

    def embed(self, ids: Array) -> tuple[Array, Kept]:
        """What enters the residual stream [B, T, C]."""
        return embed(ids, self.parameters["embedding"])

    def embed_backward(self, dy: Array, kept: Kept) -> dict[str, Array]:
        """The gradients of what was looked up, by name."""
        return {"embedding": embed_backward(dy, kept)}

    def norm(self, x: Array, name: str) -> tuple[Array, Kept]:
        """x [..., C] normalised by the parameters called `name`."""
        return rmsnorm(x, self.parameters[f"{name}.gain"], self.config.norm_eps)

    def norm_backward(self, dy: Array, kept: Kept, name: str, g: dict[str, Array]) -> Array:
        """The gradient of x; adds the parameters' to g."""
        dx, g[f"{name}.gain"] = rmsnorm_backward(dy, kept)
        return dx

    def activate(self, gate_up: Array) -> tuple[Array, Kept]:
        """The MLP's inner activation [..., F]."""
        return swiglu(gate_up)

    def activate_backward(self, dy: Array, kept: Kept) -> Array:
        """The gradient of gate_up."""
        return swiglu_backward(dy, kept)

    def place(self, x: Array, gain: str) -> tuple[Array, Kept]:
        """Queries or keys [B, H, T, D] as attention compares them: turned, normalised before."""
        c, kept_norm = self.config, None
        if c.qk_norm:
            x, kept_norm = rmsnorm(x, self.parameters[gain], c.norm_eps)
        y, kept_turn = self.turn(x)
        return y, (kept_norm, kept_turn)

    def place_backward(self, dy: Array, kept: Kept, gain: str, g: dict[str, Array]) -> Array:
        """The gradient of what was placed; adds the gain's to g."""
        kept_norm, kept_turn = kept
        dx = self.turn_backward(dy, kept_turn)
        if self.config.qk_norm:
            dx, g[gain] = rmsnorm_backward(dx, kept_norm)
        return dx

    def turn(self, x: Array) -> tuple[Array, Kept]:
        """Queries or keys [B, H, T, D] with their positions in them."""
        return rope(x, self.config.rope_base, self.config.rope_scaling)

    def turn_backward(self, dy: Array, kept: Kept) -> Array:
        """The gradient of x."""
        return rope_backward(dy, kept)

    def attend(self, q: Array, k: Array, v: Array) -> tuple[Array, Kept]:
        """attend, perhaps with a bias; attend_backward is the same for any."""
        return attend(q, k, v)

    def losses(self, logits: Array, targets: Array) -> tuple[Array, Kept]:
        """What is minimised, for each token [B, T]."""
        return cross_entropy(logits, targets)

    def losses_backward(self, dlosses: Array, kept: Kept) -> Array:
        """The gradient of the logits."""
        return cross_entropy_backward(dlosses, kept)

    def _split_heads(self, x: Array) -> Array:
        """[B, T, H * D] -> [B, H, T, D]."""
        b, t, _ = x.shape
        return x.reshape(b, t, -1, self.config.head_size).swapaxes(1, 2)

    @staticmethod
    def _join_heads(x: Array) -> Array:
        """[B, H, T, D] -> [B, T, H * D]."""
        b, h, t, d = x.shape
        return x.swapaxes(1, 2).reshape(b, t, h * d)
