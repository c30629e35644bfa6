"""An RWKV-7's weights as the steps want them: constants folded in, matrices [in, out].

    the mean of x      is taken out of everything that writes to the residual stream, so that a
                       LayerNorm is an RMSNorm: x / sqrt(sum x^2 + C eps) is left
    sqrt(C)            of a LayerNorm, into its gain; sqrt(D) into that of the heads
    1/2                of sigmoid(z) = 1/2 + 1/2 tanh(z/2), into what makes z
    biases             a row more of a matrix, for an input that is always 1

The layers of low rank ("down" then "up") are those of the decay w, the rate a, the share v of the
first layer's values and the gate g.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from phi_infer.mapped import let_go
from phi_infer.matrices import MatrixTable, fill
from phi_model import ModelConfig
from phi_model.rwkv7.parameters import MIXES
from phi_model.rwkv7.reference import HEAD_NORM_EPS, LEAST_LOG_DECAY
from phi_model.rwkv7_sizes import lora_rank

__all__ = ["RWKV7Layer", "RWKV7Weights"]

Array = NDArray[Any]


class RWKV7Layer(NamedTuple):
    """One layer; matrices [in, out], C channels, F hidden, R* ranks. The first has no share."""

    time_norm: tuple[Array, Array]  # gain, bias [C]
    mixes: Array  # [6, C] of r, w, k, v, a, g
    receptance: Array  # [C, C]
    key: Array  # [C, C]
    value: Array  # [C, C + Rv]: the values, and what their share is made of
    w_down: Array  # [C, Rw]
    a_down: Array  # [C, Ra]
    g_down: Array  # [C, Rg]
    w_up: Array  # [1 + Rw, C] the first row is the bias
    a_up: Array  # [Ra + 1, C] the last row is the bias, here and below
    v_up: Array  # [Rv + 1, C]
    g_up: Array  # [Rg + 1, C]
    k_k: Array  # [C]
    k_scale: tuple[Array, Array]  # k = k0 (tanh a [0] + [1])
    r_k: Array  # [C]
    head_norm: tuple[Array, Array]  # gain, bias [C]
    output: Array  # [C, C]
    channel_norm: tuple[Array, Array]
    mix_k: Array  # [C]
    channel_key: Array  # [C, F]
    channel_value: Array  # [F, C]


class RWKV7Weights:
    """Folded weights of one model, read-only once made: any number of steps may share them.

    The matrices are copied at their first use, and their originals let go; the embedding stays
    where it is.
    """

    def __init__(self, config: ModelConfig, parameters: Mapping[str, Array]) -> None:
        c = self.config = config
        self._parameters = parameters
        self.embedding = parameters["embedding"]
        self.eps = np.float32(np.sqrt(c.n_embd * c.norm_eps))  # an element more of the vector
        self.ranks = {name: lora_rank(name, c.n_embd) for name in "wavg"}
        # of tanh: log w, -a, share
        scale = np.array([LEAST_LOG_DECAY / 2, -0.5, 0.5], np.float32)
        self.squash = np.repeat(scale[:, None], c.n_embd, axis=1)  # both factor and addend
        self.centre = self._centre()
        self._first_norm = self._norm("embedding_norm")
        self._mean = np.full(c.n_embd, 1 / c.n_embd, np.float32)

    def _centre(self) -> Array:
        """[D + 1, D + 1]: [y, 1] -> [y less its mean, sqrt(D eps)] of a head."""
        d = self.config.head_size
        centre = np.zeros((d + 1, d + 1), np.float32)
        centre[:d, :d] = np.eye(d) - 1 / d
        centre[d, d] = np.sqrt(d * HEAD_NORM_EPS)
        return centre

    @cached_property
    def _folded(self) -> MatrixTable:
        """Every matrix, in one buffer."""
        c, p = self.config, self._parameters
        shapes: dict[str, tuple[int, int]] = {}
        for i in range(c.n_layer):
            shapes |= {f"{i}.{name}": shape for name, shape in self._layer_shapes().items()}
        table = MatrixTable(shapes | {"head": (c.n_embd + 1, c.vocab_size)})
        for i in range(c.n_layer):
            self._fold_layer(p, i, table)
        self._fold_head(p, table["head"])
        self._parameters = {name: value for name, value in p.items() if value.ndim == 1}
        let_go(p.values())
        return table

    def _layer_shapes(self) -> dict[str, tuple[int, int]]:
        c, f, ranks = self.config.n_embd, self.config.n_hidden, self.ranks
        shapes: dict[str, tuple[int, int]] = {"value": (c, c + ranks["v"])}
        shapes |= dict.fromkeys(("receptance", "key", "output"), (c, c))
        shapes |= {f"{name}_down": (c, ranks[name]) for name in "wag"}
        shapes |= {f"{name}_up": (ranks[name] + 1, c) for name in "wavg"}
        return shapes | {"channel_key": (c, f), "channel_value": (f, c)}

    def _fold_layer(self, p: Mapping[str, Array], i: int, table: MatrixTable) -> None:
        part, c = f"layers.{i}.time_mix", self.config.n_embd
        half = np.float32(0.5)
        for name in ("receptance", "key"):
            fill(table[f"{i}.{name}"], p[f"{part}.{name}"])
        fill(table[f"{i}.value"][:, :c], p[f"{part}.value"])
        fill(table[f"{i}.output"], _centred(p[f"{part}.output"]))
        loras = [name for name in "wavg" if f"{part}.{name}_up" in p]
        for name in loras:
            out = table[f"{i}.value"][:, c:] if name == "v" else table[f"{i}.{name}_down"]
            down = p[f"{part}.{name}_down"]
            fill(out, down * half if name == "g" else down)
            rows, up = table[f"{i}.{name}_up"], p[f"{part}.{name}_up"] * half
            fill(rows[1:] if name == "w" else rows[:-1], up)
            if name == "g":
                rows[-1] = up.sum(axis=1)
            else:
                rows[0 if name == "w" else -1] = p[f"{part}.{name}_bias"] * half
        layer = f"layers.{i}.channel_mix"
        fill(table[f"{i}.channel_key"], p[f"{layer}.key"])
        fill(table[f"{i}.channel_value"], _centred(p[f"{layer}.value"]))

    def _fold_head(self, p: Mapping[str, Array], out: Array) -> None:
        head = p["embedding" if self.config.tied_head else "head"]
        gain, bias = self._norm("final_norm")
        fill(out[:-1], head, gain)
        out[-1] = head @ bias

    @cached_property
    def layers(self) -> list[RWKV7Layer]:
        """The layers, first to last."""
        return [self._layer(i) for i in range(self.config.n_layer)]

    def _layer(self, i: int) -> RWKV7Layer:
        p, part, t = self._parameters, f"layers.{i}.time_mix", self._folded
        gain, bias = (p[f"{part}.head_norm.{name}"] for name in ("gain", "bias"))
        half_k_a = p[f"{part}.k_a"] * np.float32(0.5)
        matrices = {name: t[f"{i}.{name}"] for name in self._layer_shapes()}
        return RWKV7Layer(
            time_norm=self._norm(f"layers.{i}.time_norm"),
            mixes=np.stack([p[f"{part}.mix_{name}"] for name in MIXES]),
            k_k=p[f"{part}.k_k"],
            k_scale=(half_k_a, 1 - half_k_a),
            r_k=p[f"{part}.r_k"],
            head_norm=(gain * np.float32(self.config.head_size**0.5), bias),
            channel_norm=self._norm(f"layers.{i}.channel_norm"),
            mix_k=p[f"layers.{i}.channel_mix.mix_k"],
            **matrices,
        )

    @property
    def head(self) -> Array:
        """[C + 1, V], the last norm in it."""
        return self._folded["head"]

    def _norm(self, name: str) -> tuple[Array, Array]:
        """Gain, with sqrt(C), and bias."""
        p = self._parameters
        return p[f"{name}.gain"] * np.float32(self.config.n_embd**0.5), p[f"{name}.bias"]

    def embed(self, tokens: Array) -> Array:
        """The residual stream [n, C] of tokens [n], less its mean."""
        gain, bias = self._first_norm
        x = self.embedding[tokens]
        x -= (x @ self._mean)[:, None]  # far cheaper than x.mean for a row
        size = np.vecdot(x, x)
        size += self.eps * self.eps
        x /= np.sqrt(size)[:, None]
        x *= gain
        x += bias
        x -= (x @ self._mean)[:, None]
        return x


def _centred(matrix: Array) -> Array:
    """A matrix [out, in] whose outputs have no mean."""
    centred: Array = matrix - matrix.mean(axis=0)
    return centred
