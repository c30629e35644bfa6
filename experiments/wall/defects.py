"""The three defects of the inherited backward pass, each put back into the plain reference GPT.

order   a block runs its norm's backward before that of the sublayer that the norm feeds
rrms    RMSNorm's backward lacks one factor 1/rms in its second term
stale   a tied embedding's gradient is never set to zero: it is the sum over all steps so far

Only the gradients are wrong: losses are those of ReferenceGPT. docs/gradients.md, section 8, says
why each is wrong.

>>> from phi_model import GPT, ModelConfig
>>> model = GPT(ModelConfig.preset("gpt-1k"))
>>> defective = DefectiveGPT(model.config, model.parameters, defects=("order", "rrms"))
>>> loss, gradients = defective.loss_and_grad([[1, 2]], [[2, 3]])
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phi_model import ModelConfig
from phi_model.reference import ReferenceGPT
from phi_model.reference_ops import attend_backward, linear_backward, share_heads_backward
from phi_train import ConfigError

__all__ = ["DEFECTS", "DefectiveGPT", "rmsnorm_backward_without_rrms"]

Array = NDArray[Any]

DEFECTS = ("order", "rrms", "stale")


class DefectiveGPT(ReferenceGPT):
    """ReferenceGPT with some of DEFECTS; without any it is ReferenceGPT itself.

    Raises ConfigError for an unknown defect, and for "stale" with a head of its own: there is no
    gradient that two uses add to.
    """

    def __init__(
        self,
        config: ModelConfig,
        parameters: Mapping[str, Array],
        *,
        defects: Collection[str] = (),
    ) -> None:
        super().__init__(config, parameters)
        if unknown := sorted(set(defects) - set(DEFECTS)):
            raise ConfigError(f"no defect is called {unknown[0]!r}; there are {', '.join(DEFECTS)}")
        if "stale" in defects and not config.tied_head:
            raise ConfigError("the defect 'stale' is a tied head's: leave it out, or set tied_head")
        self.defects = frozenset(defects)
        self.left_over: Array | None = None  # of the embedding's gradient, from all steps so far

    def loss_and_grad(
        self, ids: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None
    ) -> tuple[float, dict[str, Array]]:
        loss, g = super().loss_and_grad(ids, targets, weights)
        if "stale" in self.defects:
            if self.left_over is not None:
                g["embedding"] = g["embedding"] + self.left_over
            self.left_over = g["embedding"]
        return loss, g

    def norm_backward(self, dy: Array, kept: Any, name: str, g: dict[str, Array]) -> Array:
        if "rrms" not in self.defects:
            return super().norm_backward(dy, kept, name, g)
        dx, g[f"{name}.gain"] = rmsnorm_backward_without_rrms(dy, kept)
        return dx

    def mlp_sublayer_backward(self, dy: Array, kept: Any, i: int, g: dict[str, Array]) -> Array:
        if "order" not in self.defects:
            return super().mlp_sublayer_backward(dy, kept, i, g)
        kept_norm, kept_up, kept_activate, kept_down = kept
        dh = self.norm_backward(dy, kept_norm, f"layers.{i}.mlp_norm", g)  # belongs last
        dhidden, g[f"layers.{i}.mlp.down"] = linear_backward(dh, kept_down)
        dup = self.activate_backward(dhidden, kept_activate)
        dx, g[f"layers.{i}.mlp.{self.mlp_matrix}"] = linear_backward(dup, kept_up)
        return dy + dx

    def attention_sublayer_backward(
        self, dy: Array, kept: Any, i: int, g: dict[str, Array]
    ) -> Array:
        if "order" not in self.defects:
            return super().attention_sublayer_backward(dy, kept, i, g)
        kept_norm, kept_qkv, kept_q, kept_k, kept_attend, kept_out = kept
        dh = self.norm_backward(dy, kept_norm, f"layers.{i}.attention_norm", g)  # belongs last
        dattended, g[f"layers.{i}.attention.out"] = linear_backward(dh, kept_out)
        dq, dk, dv = attend_backward(self._split_heads(dattended), kept_attend)
        dk, dv = (share_heads_backward(part, self.config.n_group) for part in (dk, dv))
        dq = self.place_backward(dq, kept_q, f"layers.{i}.attention.q_norm.gain", g)
        dk = self.place_backward(dk, kept_k, f"layers.{i}.attention.k_norm.gain", g)
        dqkv = np.concatenate([self._join_heads(part) for part in (dq, dk, dv)], axis=-1)
        dx, g[f"layers.{i}.attention.qkv"] = linear_backward(dqkv, kept_qkv)
        return dy + dx


def rmsnorm_backward_without_rrms(dy: Array, kept: Any) -> tuple[Array, Array]:
    """rmsnorm_backward with rrms^2 in the second term, where rrms^3 belongs."""
    x, gain, rrms = kept
    dgain = (dy * x * rrms).reshape(-1, x.shape[-1]).sum(axis=0)
    dnormed = dy * gain
    projection = (dnormed * x).mean(axis=-1, keepdims=True)
    return rrms * dnormed - x * rrms**2 * projection, dgain
