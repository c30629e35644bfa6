"""All memory that a pass over a batch needs, allocated once for a batch's shape.

Knows shapes, not mathematics. Activations are feature-major: [channels, tokens], where token
n = b * T + t, so a head, a half of a head, gate and up are contiguous blocks of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import DTypeLike, NDArray

from phi_model import attention
from phi_model.config import ModelConfig
from phi_model.parameters import FlatTable
from phi_model.rope import RopeTables

__all__ = ["LayerActivations", "Workspace"]

Array = NDArray[Any]


@dataclass
class LayerActivations:
    """What one layer's forward pass keeps for its backward pass."""

    x: Array  # [C, N] the layer's input
    attention_h: Array  # [C, N] normalised x
    attention_rrms: Array  # [N]
    qkv: Array  # [3C, N] queries and keys rotated
    weights: list[Array]  # [B, H, end, end - first] for each block of queries
    inverse_sum: Array  # [B, H, 1, T]
    attended: Array  # [C, N]
    x_mid: Array  # [C, N] after attention
    mlp_h: Array  # [C, N] normalised x_mid
    mlp_rrms: Array  # [N]
    gate_up: Array  # [2F, N] silu's slope and up; their gradients in the end
    silu: Array  # [F, N] of the gate


class Workspace:
    """The arena of one (config, batch shape); `keep` is False for passes without a backward."""

    def __init__(
        self, config: ModelConfig, batch: int, length: int, *, dtype: DTypeLike, keep: bool
    ) -> None:
        self.config, self.batch, self.length, self.keep = config, batch, length, keep
        self.tokens = batch * length
        n_kept = config.n_layer if keep else 1
        shapes: dict[str, tuple[int, ...]] = {}
        for i in range(n_kept):
            shapes |= {f"{i}.{name}": shape for name, shape in self._layer_shapes().items()}
        shapes |= self._shared_shapes()
        self._arena = FlatTable(shapes, dtype=dtype)
        kept = [self._layer(i) for i in range(n_kept)]
        self.layers = [kept[i if keep else 0] for i in range(config.n_layer)]
        for name in self._shared_shapes():
            if not name.startswith("dscores"):
                setattr(self, name, self._arena[name])
        if keep:
            self.dscores = [self._arena[f"dscores.{j}"] for j in range(len(self._spans))]
        self.rope = RopeTables(batch, length, config.head_size, config.rope_base, dtype=dtype)

    x_final: Array  # [C, N] the last layer's output
    h_final: Array  # [C, N] normalised
    rrms_final: Array  # [N]
    logits: Array  # [V, N]
    total: Array  # [N]
    hidden: Array  # [F, N] the MLP's inner activation
    scratch: Array  # [C, N]
    rope_scratch: Array  # [2, C, N]
    # with keep only:
    dx: Array  # [C, N] the gradient that travels down the residual stream
    dh: Array  # [C, N]
    dqkv: Array  # [3C, N]
    dhidden: Array  # [F, N]

    @property
    def _spans(self) -> list[tuple[int, int]]:
        return list(attention.blocks(self.length))

    def _weight_shapes(self) -> list[tuple[int, ...]]:
        rows = (self.batch, self.config.n_head)
        return [(*rows, end, end - first) for first, end in self._spans]

    def _layer_shapes(self) -> dict[str, tuple[int, ...]]:
        c, n = self.config, self.tokens
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(
            ("x", "attention_h", "attended", "x_mid", "mlp_h"), (c.n_embd, n)
        )
        shapes |= {"attention_rrms": (n,), "mlp_rrms": (n,)}
        shapes |= {"qkv": (3 * c.n_embd, n), "gate_up": (2 * c.n_hidden, n)}
        shapes["silu"] = (c.n_hidden, n)
        shapes["inverse_sum"] = (self.batch, c.n_head, 1, self.length)
        return shapes | {f"weights.{j}": s for j, s in enumerate(self._weight_shapes())}

    def _shared_shapes(self) -> dict[str, tuple[int, ...]]:
        c, n = self.config, self.tokens
        shapes: dict[str, tuple[int, ...]] = {
            "x_final": (c.n_embd, n),
            "h_final": (c.n_embd, n),
            "rrms_final": (n,),
            "logits": (c.vocab_size, n),
            "total": (n,),
            "hidden": (c.n_hidden, n),
            "scratch": (c.n_embd, n),
            "rope_scratch": (2, c.n_embd, n),
        }
        if self.keep:
            shapes |= {"dx": (c.n_embd, n), "dh": (c.n_embd, n), "dqkv": (3 * c.n_embd, n)}
            shapes["dhidden"] = (c.n_hidden, n)
            shapes |= {f"dscores.{j}": s for j, s in enumerate(self._weight_shapes())}
        return shapes

    def _layer(self, i: int) -> LayerActivations:
        views = {name: self._arena[f"{i}.{name}"] for name in self._layer_shapes()}
        weights = [views.pop(f"weights.{j}") for j in range(len(self._spans))]
        return LayerActivations(weights=weights, **views)

    def heads(self, rows: Array) -> Array:
        """[C, N] seen as [B, H, D, T], the shape attention works on."""
        c = self.config
        return rows.reshape(c.n_head, c.head_size, self.batch, self.length).transpose(2, 0, 1, 3)

    def planes(self, rows: Array) -> Array:
        """[2C, N], queries then keys, seen as RoPE's [2, H, 2 (half), D/2, N]."""
        c = self.config
        half = c.head_size // 2
        return rows.reshape(2, c.n_head, 2, half, self.tokens)

    def plane_scratch(self) -> tuple[Array, Array]:
        """Two buffers, each half of `planes`."""
        c = self.config
        shape = (2, c.n_head, c.head_size // 2, self.tokens)
        first, second = self.rope_scratch
        return first.reshape(shape), second.reshape(shape)

    @property
    def nbytes(self) -> int:
        """Bytes held by the arena."""
        return int(self._arena.flat.nbytes)
