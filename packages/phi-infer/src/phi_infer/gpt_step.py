"""A GPT one token at a time, with a cache of keys and values. Forward only, vectors not batches.

    per layer   norm, qkv, RoPE, a row into the cache, attention, out
                norm, gate and up, SwiGLU, down

A call of numpy costs more than the arithmetic of a small model, so every buffer and view is made
before it is needed, constants are folded into the weights (phi_infer.gpt_weights), and each line
below is one call. The plain step it must equal is kept in tests/test_gpt_step.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.gpt_cache import BLOCK, GPTCache
from phi_infer.gpt_pass import SUM_RANGE
from phi_infer.gpt_prefill import prefill
from phi_infer.gpt_weights import GPTWeights
from phi_infer.matrices import multiplier
from phi_model import ModelConfig

__all__ = ["GPTStep"]

Array = NDArray[Any]
Attend = Callable[[Array, Array, Array, Array, Array], None]


class GPTStep:
    """The state of one text: feed it a token, it returns the logits of the next.

    parameters: a model's, or its GPTWeights, which steps share. window: see new_step.
    """

    def __init__(
        self,
        config: ModelConfig,
        parameters: Mapping[str, Array] | GPTWeights,
        *,
        window: int | None = None,
        cache: GPTCache | None = None,
    ) -> None:
        c = self.config = config
        w = parameters if isinstance(parameters, GPTWeights) else GPTWeights(config, parameters)
        self.weights = w
        self._cache = GPTCache(w, window) if cache is None else cache
        self._block = -1  # of positions that the views of the cache are made for
        self._products: tuple[Callable[..., Array], ...] = ()
        heads, d = (c.n_kv_head, c.n_group), c.head_size
        self._with_eps = np.full(c.n_embd + 1, w.eps, np.float32)
        self._with_one = np.ones(c.n_embd + 1, np.float32)
        self._square, self._root = np.zeros((), np.float32), np.zeros((), np.float32)
        self._row = np.zeros(w.n_columns, np.float32)
        self._scores = np.zeros((0, 0, 0), np.float32)
        self._sums = np.zeros((c.n_layer, *heads, d + 1), np.float32)
        self._attended = np.zeros((*heads, d), np.float32)
        self._update = np.zeros(c.n_embd, np.float32)
        self._gate_up = np.zeros(2 * c.n_hidden, np.float32)
        self._hidden = np.zeros(c.n_hidden, np.float32)
        quiet = Context()  # entered at a tenth of the cost of np.errstate
        quiet.run(np.seterr, over="ignore", invalid="ignore")
        self._quietly = quiet.run

    @property
    def position(self) -> int:
        """Tokens read so far."""
        return self._cache.position

    @position.setter
    def position(self, value: int) -> None:
        self._cache.position = value

    def prefill(self, ids: Sequence[int] | Array) -> Array:
        """Reads ids, one or more, by matrix products; the logits [V] after the last."""
        if len(ids) == 1:
            return self(ids[0])
        logits = prefill(self._cache, ids)
        self._block = -1
        return logits

    def memory(self) -> list[Array]:
        """What is remembered of the text: the cache's keys and values, themselves."""
        return self._cache.memory

    def copy(self) -> GPTStep:
        """A step that goes on from here by itself; the weights are shared."""
        return GPTStep(self.config, self.weights, cache=self._cache.copy())

    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Writes what is remembered of the text to a file, whole or not at all."""
        self._cache.save(path)

    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Goes on from a saved state. Raises CheckpointError or ConfigError."""
        self._cache.load(path)
        self._block = -1

    def __call__(self, token: int) -> Array:
        """Logits [V] after `token`, a new array; takes its place at the end of the text."""
        position = self._cache.position
        self._cache.make_room(1)
        if position // BLOCK != self._block:
            self._enter_block(position)
        logits: Array = self._quietly(self._run, token, position, _attend)
        sums = self._sums[..., -1].ravel()
        if not (
            sums[sums.argmin()] > SUM_RANGE[0] and sums[sums.argmax()] < SUM_RANGE[1]
        ):  # also when a NaN is among them
            logits = self._quietly(self._run, token, position, self._attend_safely)
        self._cache.position = position + 1
        return logits

    def _enter_block(self, position: int) -> None:
        """Views of the rows seen from this block of positions, and its RoPE."""
        c, cache = self.config, self._cache
        self._block = position // BLOCK
        first = self._block * BLOCK
        n = min(first + BLOCK, cache.window)
        turns = self.weights.turns(np.arange(first, first + BLOCK))
        self._turns = list(np.tile(turns, (1, c.n_head + c.n_kv_head)))
        self._scores = np.zeros((c.n_kv_head, c.n_group, n), np.float32)
        sums = self._sums
        self._layers = list(
            zip(
                self.weights.layers, cache.keys, cache.values,
                cache.keys[:, :, :n].swapaxes(-1, -2), cache.values[:, :, :n],
                sums, sums[..., :-1], sums[..., -1:],
                strict=True,
            )
        )  # fmt: skip
        if not self._products:
            self._make_views()

    def _make_views(self) -> None:
        """Views of the buffers, and what multiplies them by matrices."""
        c, w = self.config, self.weights
        qk = self._row[: w.n_qk]
        self._qk, self._planes = qk.reshape(-1, c.head_size), qk.view(np.complex64)
        self._q = qk[: c.n_embd].reshape(c.n_kv_head, c.n_group, c.head_size)
        self._new_keys = self._qk[c.n_head :]
        self._new_values = self._row[w.n_qk : c.n_embd + w.n_row].reshape(c.n_kv_head, -1)
        self._x, self._h = self._with_eps[:-1], self._with_one[:-1]
        self._gate, self._up = np.split(self._gate_up, 2)
        layer = w.layers[0]
        self._products = (
            multiplier(self._with_one, layer.qkv),
            multiplier(self._attended.ravel(), layer.out),
            multiplier(self._h, layer.gate_up),
            multiplier(self._hidden, layer.down),
            multiplier(self._h, w.head),
        )

    def _run(self, token: int, position: int, attend: Attend) -> Array:
        add, multiply, divide, sqrt, tanh = np.add, np.multiply, np.divide, np.sqrt, np.tanh
        x, h, update, attended = self._x, self._h, self._update, self._attended
        square, root, with_eps, row, new_keys, new_values = (
            self._square, self._root, self._with_eps, self._row, self._new_keys, self._new_values
        )  # fmt: skip
        qk, q, scores, gate_up, gate, up, hidden = (
            self._planes, self._q, self._scores, self._gate_up, self._gate, self._up, self._hidden
        )  # fmt: skip
        sum_squares, (to_qkv, to_out, to_gate_up, to_down, to_logits) = with_eps.dot, self._products
        slot, turn = position % self._cache.window, self._turns[position % BLOCK]
        x[...] = self.weights.embedding[token]
        for layer, all_keys, all_values, keys, values, sums, weighted, total in self._layers:
            qkv, qk_gain, out, matrix_gate_up, down = layer
            sum_squares(with_eps, square)
            sqrt(square, root)
            divide(x, root, h)
            to_qkv(qkv, row)
            if qk_gain is not None:
                self._normalise_heads(qk_gain)
            multiply(qk, turn, qk)
            all_keys[:, slot] = new_keys
            all_values[:, slot] = new_values
            attend(q, keys, values, scores, sums)
            divide(weighted, total, attended)
            to_out(out, update)
            add(x, update, x)

            sum_squares(with_eps, square)
            sqrt(square, root)
            divide(x, root, h)
            to_gate_up(matrix_gate_up, gate_up)
            tanh(gate, hidden)
            multiply(gate, up, up)
            multiply(hidden, up, hidden)
            add(hidden, up, hidden)
            to_down(down, update)
            add(x, update, x)
        sum_squares(with_eps, square)
        sqrt(square, root)
        divide(x, root, h)
        logits: Array = to_logits(self.weights.head)
        return logits

    def _normalise_heads(self, gain: Array) -> None:
        """QK-norm: each head by itself, in place."""
        qk = self._qk
        size = np.vecdot(qk, qk)
        size += self.weights.head_eps
        np.sqrt(size, size)
        np.divide(qk, size[:, None], qk)
        np.multiply(qk, gain, qk)

    def _attend_safely(
        self, q: Array, keys: Array, values: Array, scores: Array, sums: Array
    ) -> None:
        """_attend less each maximum, which the division by the sum removes."""
        filled = min(self._cache.position + 1, self._cache.window)
        np.matmul(q, keys, scores)
        seen = scores[..., :filled]
        seen -= seen.max(axis=-1, keepdims=True)
        np.exp(seen, seen)
        np.matmul(scores, values, sums)


def _attend(q: Array, keys: Array, values: Array, scores: Array, sums: Array) -> None:
    """Sums [K, G, D + 1] of values weighted by exp(q . k), the last of the weights alone.

    q [K, G, D], keys [K, D, n], values [K, n, D + 1]: G heads of queries share one of keys.
    """
    np.matmul(q, keys, scores)
    np.exp(scores, scores)
    np.matmul(scores, values, sums)
