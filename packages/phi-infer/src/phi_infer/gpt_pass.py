"""A GPT's layers over n tokens at once, of one text or of many: products of matrices in buffers.

The buffers are made once and written again by every layer: memory that a program has just got
from the system costs more to touch than these products do to compute.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.gpt_weights import GPTLayer, GPTWeights
from phi_infer.matrices import product

__all__ = ["SUM_RANGE", "GPTPass"]

Array = NDArray[Any]

SUM_RANGE = (1e-30, 1e30)  # of attention's unnormalised weights: well inside float32


class GPTPass:
    """Passes over up to `size` tokens. Call embed, for each layer qkv, attention, add_attended
    and add_mlp, and then logits; keep_last may come in between. x [n, C] is the residual stream,
    attended [n, K, G, D] what add_attended reads.
    """

    def __init__(self, weights: GPTWeights, size: int) -> None:
        self.weights = weights
        self._buffers = _take_buffers(weights, size)

    def end(self) -> None:
        """Leaves the buffers to the next pass over these weights; this one is over."""
        self.weights.spare_buffers[:] = [self._buffers]

    def embed(self, tokens: Array) -> None:
        """The start of a pass over tokens [n]."""
        self._use(slice(len(tokens)))
        self.x[...] = self.weights.embedding[tokens]
        self._with_eps[:, -1] = self.weights.eps  # a sum of squares is never zero
        self._with_one[:, -1] = 1

    def keep_last(self) -> None:
        """Goes on with the last token alone."""
        last = len(self.x) - 1
        self._use(slice(last, last + 1))

    def _use(self, tokens: slice) -> None:
        b = self._buffers
        self._with_eps, self._with_one = b["with_eps"][tokens], b["with_one"][tokens]
        self._gate_up, self._hidden = b["gate_up"][tokens], b["hidden"][tokens]
        n_hidden = self._hidden.shape[1]
        self._gate, self._up = self._gate_up[:, :n_hidden], self._gate_up[:, n_hidden:]
        self._product, self._update = b["product"][tokens], b["update"][tokens]
        self.attended = b["attended"][tokens]
        self.x, self._h = self._with_eps[:, :-1], self._with_one[:, :-1]

    def _normalise(self) -> None:
        """RMSNorm but for what the weights hold."""
        size = np.vecdot(self._with_eps, self._with_eps)
        np.sqrt(size, size)
        np.divide(self.x, size[:, None], self._h)

    def qkv(self, layer: GPTLayer, turns: Array) -> tuple[Array, Array, Array]:
        """Queries [n, K, G, D], keys [n, K, D], both turned by RoPE, and values [n, K, D + 1];
        views.

        turns [n, 1, D/2] of the tokens' positions.
        """
        w, c, n = self.weights, self.weights.config, len(self.x)
        self._normalise()
        product(self._with_one, layer.qkv, self._product)
        qk = self._product[:, : w.n_qk].reshape(n, -1, c.head_size)
        if layer.qk_gain is not None:
            qk /= np.sqrt(np.vecdot(qk, qk) + w.head_eps)[..., None]
            qk *= layer.qk_gain
        planes = qk.view(np.complex64)
        planes *= turns
        q = qk[:, : c.n_head].reshape(n, c.n_kv_head, c.n_group, c.head_size)
        values = self._product[:, w.n_qk : c.n_embd + w.n_row]
        return q, qk[:, c.n_head :], values.reshape(n, c.n_kv_head, c.head_size + 1)

    def attention(self, q: Array, keys: Array, values: Array, seen: Array | None = None) -> Array:
        """[..., T, D] of q [..., T, D] over keys [..., n, D] and values [..., n, D + 1].

        seen [T, m]: 1 where one of the last m rows is seen, 0 where not; all before them are.
        Without it all rows are, and those that are zero weigh nothing. The last value is 1, so the
        product with the weights ends in their sum; no maximum is subtracted until a sum is not
        comfortably within range.
        """
        keys = keys.swapaxes(-1, -2)
        weights = self._room((*np.broadcast_shapes(q.shape[:-2], keys.shape[:-2]),
                              q.shape[-2], keys.shape[-1]))  # fmt: skip
        np.matmul(q, keys, weights)
        np.exp(weights, weights)
        if seen is not None:
            weights[..., -seen.shape[-1] :] *= seen
        sums = np.matmul(weights, values)
        total = sums[..., -1]
        if not (SUM_RANGE[0] < total.min() and total.max() < SUM_RANGE[1]):  # also for a NaN
            seen = values[..., None, :, -1] if seen is None else seen
            np.matmul(q, keys, weights)
            np.copyto(weights[..., -seen.shape[-1] :], -np.inf, where=seen == 0)
            weights -= weights.max(axis=-1, keepdims=True)
            np.exp(weights, weights)
            sums = np.matmul(weights, values)
        attended: Array = sums[..., :-1] / sums[..., -1:]
        return attended

    def _room(self, shape: tuple[int, ...]) -> Array:
        size = prod(shape)
        if size > self._buffers["scores"].size:
            self._buffers["scores"] = np.empty(size, np.float32)
        return self._buffers["scores"][:size].reshape(shape)

    def add_attended(self, layer: GPTLayer) -> None:
        """What was attended to, through the layer's out, into the residual stream."""
        product(self.attended.reshape(len(self.x), -1), layer.out, self._update)
        np.add(self.x, self._update, self.x)

    def add_mlp(self, layer: GPTLayer) -> None:
        """SwiGLU into the residual stream."""
        self._normalise()
        product(self._h, layer.gate_up, self._gate_up)
        np.tanh(self._gate, self._hidden)
        self._up *= self._gate
        self._hidden *= self._up
        self._hidden += self._up
        product(self._hidden, layer.down, self._update)
        np.add(self.x, self._update, self.x)

    def logits(self) -> Array:
        """[n, V], a new array."""
        self._normalise()
        return product(self._h, self.weights.head)


def _take_buffers(weights: GPTWeights, size: int) -> dict[str, Array]:
    """For `size` tokens or more: those of a pass that has ended, or new ones."""
    try:
        kept = weights.spare_buffers.pop()  # one call: other threads take others
    except IndexError:
        kept = {}
    if kept and len(kept["update"]) >= size:
        return kept
    c = weights.config
    shapes: dict[str, tuple[int, ...]] = {
        "with_eps": (size, c.n_embd + 1),
        "with_one": (size, c.n_embd + 1),
        "product": (size, weights.n_columns),
        "attended": (size, c.n_kv_head, c.n_group, c.head_size),
        "gate_up": (size, 2 * c.n_hidden),
        "hidden": (size, c.n_hidden),
        "update": (size, c.n_embd),
        "scores": (0,),
    }
    return {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
