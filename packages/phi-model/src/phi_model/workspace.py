"""All memory that a pass over a batch needs, allocated once for a batch's shape.

Knows shapes, not mathematics. Activations are feature-major: [channels, tokens], where token
n = b * T + t, so a head, a half of a head, gate and up are contiguous blocks of rows.

    C n_embd, D head_size, H n_head, K n_kv_head, G = H / K, KD n_kv_embd, F n_hidden
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import DTypeLike, NDArray

from phi_model import attention
from phi_model.config import ModelConfig
from phi_model.parameters import FlatTable
from phi_model.rope import RopeTables
from phi_model.swiglu import swiglu_scratch

__all__ = ["LayerActivations", "Workspace", "arena_shapes"]

Array = NDArray[Any]
Shapes = dict[str, tuple[int, ...]]


@dataclass
class LayerActivations:
    """What one layer's forward pass keeps for its backward pass."""

    x: Array  # [C, N] the layer's input
    attention_h: Array  # [C, N] normalised x
    attention_rrms: Array  # [N]
    qkv: Array  # [C + 2KD, N] queries and keys rotated
    qk_normed: Array  # [C + KD, N] queries and keys over their size; no rows without qk_norm
    qk_rrms: Array  # [H + K, 1, N]; the same
    weights: list[Array]  # [B, K, G, end, end - first] for each block of queries
    inverse_sum: Array  # [B, K, G, 1, T], a view of [H, N]
    attended: Array  # [C, N]
    x_mid: Array  # [C, N] after attention
    mlp_h: Array  # [C, N] normalised x_mid
    mlp_rrms: Array  # [N]
    gate_up: Array  # [2F, N] after swiglu what its backward needs; their gradients in the end
    hidden: Array  # [F, N] the MLP's inner activation
    # views, made once:
    planes: Array  # queries and keys as RoPE takes them
    q: Array  # as attention takes them
    k: Array
    v: Array
    attended_heads: Array


def layer_shapes(config: ModelConfig, batch: int, length: int) -> Shapes:
    """Name and shape of what is kept of each layer: the fields of LayerActivations."""
    c, n = config, batch * length
    shapes: Shapes = dict.fromkeys(
        ("x", "attention_h", "attended", "x_mid", "mlp_h"), (c.n_embd, n)
    )
    shapes |= {"attention_rrms": (n,), "mlp_rrms": (n,)}
    shapes |= {"qkv": (c.n_embd + 2 * c.n_kv_embd, n), "gate_up": (2 * c.n_hidden, n)}
    shapes["qk_normed"] = (c.n_embd + c.n_kv_embd if c.qk_norm else 0, n)
    shapes["qk_rrms"] = (c.n_head + c.n_kv_head if c.qk_norm else 0, 1, n)
    shapes["hidden"] = (c.n_hidden, n)
    shapes["inverse_sum"] = (c.n_head, n)
    return shapes | _weight_shapes("weights", config, batch, length)


def shared_shapes(config: ModelConfig, batch: int, length: int, *, keep: bool) -> Shapes:
    """Name and shape of what all layers share: attributes of Workspace."""
    c, n = config, batch * length
    shapes: Shapes = {
        "x_final": (c.n_embd, n),
        "h_final": (c.n_embd, n),
        "rrms_final": (n,),
        "logits": (c.vocab_size, n),
        "total": (n,),
        "scratch": (c.n_embd, n),
        "qk_scratch": (c.n_embd + c.n_kv_embd, n),
        "swiglu_scratch": swiglu_scratch(c.n_hidden, n),
    }
    if keep:
        shapes |= {"dx": (c.n_embd, n), "dh": (c.n_embd, n)}
        shapes |= {"dqkv": (c.n_embd + 2 * c.n_kv_embd, n), "dhidden": (c.n_hidden, n)}
        shapes |= _weight_shapes("dscores", config, batch, length)
    return shapes


def _weight_shapes(name: str, config: ModelConfig, batch: int, length: int) -> Shapes:
    heads = (batch, config.n_kv_head, config.n_group)
    return {
        f"{name}.{j}": (*heads, end, end - first)
        for j, (first, end) in enumerate(attention.blocks(length))
    }


def arena_shapes(config: ModelConfig, batch: int, length: int, *, keep: bool) -> Shapes:
    """Everything in a workspace's arena; without `keep` all layers use one layer's part."""
    shapes = shared_shapes(config, batch, length, keep=keep)
    for i in range(config.n_layer if keep else 1):
        for name, shape in layer_shapes(config, batch, length).items():
            shapes[f"{i}.{name}"] = shape
    return shapes


class Workspace:
    """The arena of one (config, batch shape); `keep` is False for passes without a backward."""

    def __init__(
        self, config: ModelConfig, batch: int, length: int, *, dtype: DTypeLike, keep: bool
    ) -> None:
        self.config, self.batch, self.length, self.keep = config, batch, length, keep
        self.tokens = batch * length
        self._ends = config.n_embd, config.n_embd + config.n_kv_embd  # of queries, of keys
        self._arena = FlatTable(arena_shapes(config, batch, length, keep=keep), dtype=dtype)
        kept = [self._layer(i) for i in range(config.n_layer if keep else 1)]
        self.layers = [kept[i if keep else 0] for i in range(config.n_layer)]
        for name in shared_shapes(config, batch, length, keep=keep):
            if not name.startswith("dscores"):
                setattr(self, name, self._arena[name])
        n_blocks = len(self.layers[0].weights)
        self.dscores = [self._arena[f"dscores.{j}"] for j in range(n_blocks) if keep]
        self.rope = RopeTables(
            batch,
            length,
            config.head_size,
            config.rope_base,
            scaling=config.rope_scaling,
            n_group=config.n_group,
            dtype=dtype,
        )
        end_q, end_k = self._ends
        self.qk_parts = (  # name, rows of qkv, heads
            ("q", slice(end_q), slice(config.n_head)),
            ("k", slice(end_q, end_k), slice(config.n_head, config.n_head + config.n_kv_head)),
        )
        self.plane_scratch = self.planes(self.qk_scratch)
        if keep:
            self.dq, self.dk, self.dv = self.qkv_heads(self.dqkv)
            self.dplanes = self.planes(self.dqkv)
            self.dh_heads, self.scratch_heads = self.heads(self.dh), self.heads(self.scratch)

    x_final: Array  # [C, N] the last layer's output
    h_final: Array  # [C, N] normalised
    rrms_final: Array  # [N]
    logits: Array  # [V, N]
    total: Array  # [N]
    scratch: Array  # [C, N]
    qk_scratch: Array  # [C + KD, N]
    swiglu_scratch: Array  # two blocks of rows of [F, N]
    # with keep only:
    dx: Array  # [C, N] the gradient that travels down the residual stream
    dh: Array  # [C, N]
    dqkv: Array  # [C + 2KD, N]
    dhidden: Array  # [F, N]

    def _layer(self, i: int) -> LayerActivations:
        names = layer_shapes(self.config, self.batch, self.length)
        views = {name: self._arena[f"{i}.{name}"] for name in names}
        weights = [views.pop(name) for name in names if name.startswith("weights.")]
        q, k, v = self.qkv_heads(views["qkv"])
        return LayerActivations(
            weights=weights,
            inverse_sum=self.heads(views.pop("inverse_sum"), size=1),
            planes=self.planes(views["qkv"]),
            q=q,
            k=k,
            v=v,
            attended_heads=self.heads(views["attended"]),
            **views,
        )

    def heads(self, rows: Array, size: int | None = None) -> Array:
        """[C, N] seen as [B, K, G, D, T], the shape attention works on; [KD, N] with G = 1.

        size: channels of a head in `rows`, when that is not D.
        """
        c = self.config
        shape = (c.n_kv_head, -1, size or c.head_size, self.batch, self.length)
        return rows.reshape(shape).transpose(3, 0, 1, 2, 4)

    def qkv_heads(self, qkv: Array) -> tuple[Array, Array, Array]:
        """The heads of queries, keys and values, which are rows of [C + 2KD, N]."""
        end_q, end_k = self._ends
        return self.heads(qkv[:end_q]), self.heads(qkv[end_q:end_k]), self.heads(qkv[end_k:])

    def by_head(self, rows: Array) -> Array:
        """Rows of queries or keys seen as [heads, D, N]."""
        return rows.reshape(-1, self.config.head_size, self.tokens)

    def planes(self, qkv: Array) -> Array:
        """The queries and keys of [C + 2KD, N] seen as RoPE's [G + 1, K, 2 (half), D/2, N]."""
        c = self.config
        shape = (c.n_group + 1, c.n_kv_head, 2, c.head_size // 2, self.tokens)
        return qkv[: self._ends[1]].reshape(shape)

    @property
    def nbytes(self) -> int:
        """Bytes held by the arena and RoPE's tables."""
        return int(self._arena.flat.nbytes) + self.rope.nbytes
