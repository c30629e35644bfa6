"""A GPT's weights as the steps want them: constants folded in, matrices [in, out].

How a matrix lies in memory is phi_infer.matrices' business. What is folded, so that no step has
to do it:

    sqrt(C) gain       of an RMSNorm, into the matrix behind it: x / sqrt(sum x^2 + C eps) is left
    order of channels  of queries and keys: planes of RoPE side by side, one complex multiply
    1 / sqrt(D)        of attention, into the queries' columns
    1/2                of the gate, as silu(g) = g/2 (1 + tanh(g/2))
    a column of ones   behind each head of values, from an input that is always 1: attention's
                       product with the values then returns the sum of its weights too
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

__all__ = ["GPTLayer", "GPTWeights"]

Array = NDArray[Any]

LINE = 16  # floats in a cache line: rows of matrices start on one
MOST_TURNS = 65_536  # positions whose angles are kept; further ones are computed each time


class GPTLayer(NamedTuple):
    """One layer's matrices [in, out]; qkv has a last row for the input that is always 1."""

    qkv: (
        Array  # [C + 1, R] columns: queries, keys, then each head of values with its column of ones
    )
    qk_gain: Array | None  # [H + K, D] of QK-norm
    out: Array  # [C, C]
    gate_up: Array  # [C, 2F]
    down: Array  # [F, C]


class GPTWeights:
    """Folded weights of one model, unchanged once made: any number of steps may share them.

    The matrices are copied at their first use, and their originals let go; the embedding stays
    where it is.
    """

    def __init__(self, config: ModelConfig, parameters: Mapping[str, Array]) -> None:
        c = self.config = config
        self._parameters = parameters
        self.embedding = parameters["embedding"]
        self.n_qk = c.n_embd + c.n_kv_embd  # columns of queries and keys
        self.n_row = c.n_kv_embd + c.n_kv_head * (c.head_size + 1)  # of keys, values and ones
        self.n_columns = -(-(c.n_embd + self.n_row) // LINE) * LINE
        self.eps = np.float32(np.sqrt(c.n_embd * c.norm_eps))  # an element more of the vector
        self.head_eps = np.float32(c.head_size * c.norm_eps)
        self.spare_buffers: list[dict[str, Array]] = []  # of a pass, for the next one
        self._turns = np.empty((0, c.head_size // 2), np.complex64)

    @cached_property
    def _folded(self) -> MatrixTable:
        """Every matrix, in one buffer."""
        c, p = self.config, self._parameters
        shapes: dict[str, tuple[int, int]] = {}
        for i in range(c.n_layer):
            shapes |= {
                f"{i}.qkv": (c.n_embd + 1, self.n_columns),
                f"{i}.out": (c.n_embd, c.n_embd),
                f"{i}.gate_up": (c.n_embd, 2 * c.n_hidden),
                f"{i}.down": (c.n_hidden, c.n_embd),
            }
        table = MatrixTable(shapes | {"head": (c.n_embd, c.vocab_size)})
        for i in range(c.n_layer):
            self._fold_layer(p, i, table)
        gain = self._gain(p, "final_norm.gain")
        fill(table["head"], p["embedding" if c.tied_head else "head"], gain)
        self._parameters = {name: value for name, value in p.items() if value.ndim == 1}
        let_go(p.values())
        return table

    @cached_property
    def layers(self) -> list[GPTLayer]:
        """The layers, first to last."""
        t = self._folded
        names = ("out", "gate_up", "down")
        return [
            GPTLayer(t[f"{i}.qkv"], self._qk_gain(i), *(t[f"{i}.{name}"] for name in names))
            for i in range(self.config.n_layer)
        ]

    @property
    def head(self) -> Array:
        """[C, V], the last norm's gain in it."""
        return self._folded["head"]

    def _fold_layer(self, p: Mapping[str, Array], i: int, table: MatrixTable) -> None:
        c, layer = self.config, f"layers.{i}"
        self._fold_qkv(
            p[f"{layer}.attention.qkv"],
            self._gain(p, f"{layer}.attention_norm.gain"),
            table[f"{i}.qkv"],
        )
        fill(table[f"{i}.out"], p[f"{layer}.attention.out"])
        gain = self._gain(p, f"{layer}.mlp_norm.gain")
        gate, up = np.split(p[f"{layer}.mlp.gate_up"], 2)
        fill(table[f"{i}.gate_up"][:, : c.n_hidden], gate, gain * np.float32(0.5))
        fill(table[f"{i}.gate_up"][:, c.n_hidden :], up, gain)
        fill(table[f"{i}.down"], p[f"{layer}.mlp.down"])

    def _fold_qkv(self, qkv: Array, gain: Array, out: Array) -> None:
        """qkv [C + 2 K D, C] -> out [C + 1, R], zeros before."""
        c, d = self.config, self.config.head_size
        scaled = qkv * gain
        if not c.qk_norm:
            scaled[: c.n_embd] *= np.float32(d**-0.5)
        pairs = scaled[: self.n_qk].reshape(-1, 2, d // 2, c.n_embd).swapaxes(1, 2)
        fill(out[:-1, : self.n_qk], pairs.reshape(self.n_qk, c.n_embd))
        values = out[:, self.n_qk : c.n_embd + self.n_row].reshape(-1, c.n_kv_head, d + 1)
        for head, rows in enumerate(np.split(scaled[self.n_qk :], c.n_kv_head)):
            values[:-1, head, :d] = rows.T
        values[-1, :, d] = 1

    def _qk_gain(self, i: int) -> Array | None:
        c = self.config
        if not c.qk_norm:
            return None
        q, k = (
            self._parameters[f"layers.{i}.attention.{name}_norm.gain"].reshape(2, -1).T.ravel()
            for name in "qk"
        )
        return np.concatenate(
            [np.tile(q, (c.n_head, 1)), np.tile(k * np.float32(c.head_size**0.5), (c.n_kv_head, 1))]
        )

    def _gain(self, p: Mapping[str, Array], name: str) -> Array:
        return p[name] * np.float32(self.config.n_embd**0.5)

    def turns(self, positions: Array) -> Array:
        """What RoPE multiplies a head's planes by at `positions` [n]: complex64 [n, D/2]."""
        furthest = int(positions.max())
        if furthest >= MOST_TURNS:
            return self._turns_at(positions)
        kept = self._turns  # another thread may put a shorter table in its place
        if furthest >= len(kept):
            kept = self._turns = self._turns_at(np.arange(max(256, 1 << furthest.bit_length())))
        turns: Array = kept[positions]
        return turns

    def _turns_at(self, positions: Array) -> Array:
        """In float64 until the last moment: a text may be long."""
        c = self.config
        frequencies = c.rope_base ** (-2.0 * np.arange(c.head_size // 2) / c.head_size)
        angles = np.outer(positions / c.rope_scaling, frequencies)
        turns: Array = np.exp(1j * angles).astype(np.complex64)
        return turns
