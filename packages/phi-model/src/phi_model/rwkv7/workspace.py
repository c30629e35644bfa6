"""All memory that a pass of an RWKV-7 needs, allocated once for a batch's shape.

Knows shapes, not mathematics. Activations are token-major, [B, T, C].

    C n_embd, D head_size, H n_head, F n_hidden, R a LoRA's rank
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from phi_model.config import ModelConfig
from phi_model.parameters import FlatTable
from phi_model.rwkv7.parameters import MIXES
from phi_model.rwkv7.state import RWKV7State
from phi_model.rwkv7.wkv_chunked import WKV, wkv_shapes
from phi_model.rwkv7_sizes import RANKS, lora_rank

__all__ = ["LayerActivations", "Workspace", "arena_shapes"]

Array = NDArray[Any]
Shapes = dict[str, tuple[int, ...]]


@dataclass
class LayerActivations:
    """What one layer's forward pass keeps for its backward pass."""

    wkv: WKV
    time_normed: Array  # [B, T, C] the time norm before its gain
    time_rstd: Array  # [B, T]
    time_shift: Array  # [B, T, C] the token before less this one
    mixed: Array  # [6, B, T, C] inputs of r, w, k, v, a, g
    k0: Array  # [B, T, C] keys before a scales them
    k_scale: Array  # [B, T, C]
    inverse_size: Array  # [B, T, H] of kappa before it is normalised
    v0: Array  # [B, T, C] this layer's own values
    share: Array  # [B, T, C] of the first layer's values
    minus_a: Array  # [B, T, C]
    gate: Array  # [B, T, C]
    low_w: Array  # [B, T, R] inner activations of the LoRAs
    low_a: Array
    low_v: Array
    low_g: Array
    head_normed: Array  # [B, T, C]
    head_rstd: Array  # [B, T, H]
    bonus: Array  # [B, T, H]
    ungated: Array  # [B, T, C]
    gated: Array  # [B, T, C]
    channel_normed: Array  # [B, T, C]
    channel_rstd: Array  # [B, T]
    channel_shift: Array  # [B, T, C]
    channel_mixed: Array  # [B, T, C]
    root: Array  # [B, T, F] relu, before it is squared


def layer_shapes(config: ModelConfig, batch: int, length: int) -> Shapes:
    """Name and shape of what is kept of each layer, but for its WKV."""
    c, rows = config, (batch, length)
    shapes: Shapes = {f.name: (*rows, c.n_embd) for f in fields(LayerActivations)}
    del shapes["wkv"]
    shapes |= dict.fromkeys(("time_rstd", "channel_rstd"), rows)
    shapes |= dict.fromkeys(("inverse_size", "head_rstd", "bonus"), (*rows, c.n_head))
    shapes |= {f"low_{name}": (*rows, lora_rank(name, c.n_embd)) for name in RANKS}
    shapes["mixed"] = (len(MIXES), *rows, c.n_embd)
    shapes["root"] = (*rows, c.n_hidden)
    return shapes


def shared_shapes(config: ModelConfig, batch: int, length: int, *, keep: bool) -> Shapes:
    """Name and shape of what all layers share."""
    c, rows = config, (batch, length)
    shapes: Shapes = dict.fromkeys(
        ("x", "first_values", "h", "scratch", "final_normed"), (*rows, c.n_embd)
    )
    shapes |= {"first_normed": (*rows, c.n_embd), "first_rstd": rows, "final_rstd": rows}
    shapes |= {"hidden": (*rows, c.n_hidden)}
    shapes |= {"logits": (c.vocab_size, batch * length), "total": (batch * length,)}
    if keep:
        names = ("dx", "dh", "dfirst_values", "dy", "dgate", "dk0", "da", "dshift")
        shapes |= dict.fromkeys(names, (*rows, c.n_embd))
        shapes |= {"dmixed": (len(MIXES), *rows, c.n_embd), "dhidden": (*rows, c.n_hidden)}
        shapes |= {f"dlow_{name}": (*rows, lora_rank(name, c.n_embd)) for name in RANKS}
    return shapes


def arena_shapes(config: ModelConfig, batch: int, length: int, *, keep: bool) -> Shapes:
    """Everything in a workspace's arena; without `keep` all layers use one layer's part."""
    shapes = shared_shapes(config, batch, length, keep=keep)
    of_layer, of_all = wkv_shapes(batch, length, config.n_head, config.head_size, keep=keep)
    shapes |= {f"wkv.{name}": shape for name, shape in of_all.items()}
    for i in range(config.n_layer if keep else 1):
        for name, shape in layer_shapes(config, batch, length).items():
            shapes[f"{i}.{name}"] = shape
        shapes |= {f"{i}.wkv.{name}": shape for name, shape in of_layer.items()}
    return shapes


class Workspace:
    """The arena of one (config, batch shape); `keep` is False for passes without a backward."""

    x: Array  # [B, T, C] the residual stream
    first_values: Array  # [B, T, C] the first layer's
    h: Array  # [B, T, C] a norm's output
    scratch: Array  # [B, T, C]
    first_normed: Array  # [B, T, C] the embedding's norm before its gain
    first_rstd: Array  # [B, T]
    final_normed: Array  # [B, T, C]
    final_rstd: Array  # [B, T]
    hidden: Array  # [B, T, F]
    logits: Array  # [V, B * T]
    total: Array  # [B * T]
    # with keep only:
    dx: Array  # [B, T, C] the gradient that travels down the residual stream
    dh: Array  # [B, T, C]
    dfirst_values: Array  # [B, T, C]
    dy: Array  # [B, T, C]
    dgate: Array  # [B, T, C]
    dk0: Array  # [B, T, C]
    da: Array  # [B, T, C]
    dshift: Array  # [B, T, C]
    dmixed: Array  # [6, B, T, C]
    dhidden: Array  # [B, T, F]
    dlow_w: Array  # [B, T, R]
    dlow_a: Array
    dlow_v: Array
    dlow_g: Array

    def __init__(
        self, config: ModelConfig, batch: int, length: int, *, dtype: DTypeLike, keep: bool
    ) -> None:
        self.config, self.batch, self.length, self.keep = config, batch, length, keep
        self.tokens = batch * length
        self._arena = FlatTable(arena_shapes(config, batch, length, keep=keep), dtype=dtype)
        self.state = RWKV7State.zeros(config, batch=batch, dtype=dtype)
        for name in shared_shapes(config, batch, length, keep=keep):
            setattr(self, name, self._arena[name])
        kept = [self._layer(i) for i in range(config.n_layer if keep else 1)]
        self.layers = [kept[i if keep else 0] for i in range(config.n_layer)]

    def _layer(self, i: int) -> LayerActivations:
        c = self.config
        of_layer, of_all = wkv_shapes(
            self.batch, self.length, c.n_head, c.head_size, keep=self.keep
        )
        wkv = WKV(
            self.batch,
            self.length,
            c.n_head,
            c.head_size,
            dtype=self._arena.dtype,
            keep=self.keep,
            kept={name: self._arena[f"{i}.wkv.{name}"] for name in of_layer},
            shared={name: self._arena[f"wkv.{name}"] for name in of_all},
        )
        views = {
            name: self._arena[f"{i}.{name}"] for name in layer_shapes(c, self.batch, self.length)
        }
        return LayerActivations(wkv=wkv, **views)

    def heads(self, x: Array) -> Array:
        """[B, T, C] seen as [B, T, H, D]."""
        return x.reshape(*x.shape[:2], self.config.n_head, self.config.head_size)

    @property
    def nbytes(self) -> int:
        """Bytes held by the arena and the state."""
        return int(self._arena.flat.nbytes) + self.state.nbytes


def rows(x: Array) -> Array:
    """[B, T, C] seen as [B * T, C]; a copy where padding lies between rows."""
    return np.reshape(x, (-1, x.shape[-1]))
