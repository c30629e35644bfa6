"""RWKV-7's recurrence in chunks of tokens: matrix products within, a short scan between them.

With gamma_t the product of w inside the chunk up to t, and rows for its c tokens:

    Q = [q_t gamma_(t-1); r_t gamma_t]    K = [b_t / gamma_t; k_t / gamma_t]      both [2c, D]
    A = mask * (Q K^T)                    left columns: what b wrote, right: what k wrote
    U = (I - A_qb)^-1 (Q_q S^T + A_qk V)  row t is S_(t-1) q_t
    Y = Q_r S^T + A_r [U; V]
    S' = (S + [U; V]^T K) diag(gamma_c)

The decay keeps 1 / gamma below e^(0.607 c), so float32 is exact enough for chunks of 16 or 32.
phi_model.rwkv7.wkv_loop is the definition. Derived in docs/rwkv7.md, sections 4 and 5.

Everything is token-major [B, T, C], so that a head of a chunk is a matrix within the array, whose
rows are C apart, and nothing is copied or turned round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from phi_model.parameters import FlatTable
from phi_model.rwkv7.unit_lower_inverse import unit_lower_inverse

__all__ = ["WKV", "chunk_size", "wkv_shapes"]

Array = NDArray[Any]
Shapes = dict[str, tuple[int, ...]]

SPAN = 8  # chunks worked on at a time: their arrays stay in cache
INPUTS = ("r", "log_w", "k", "v", "q", "b")


def chunk_size(head_size: int) -> int:
    """Tokens in a chunk: matrices of [2c, D] are about square."""
    return 16 if head_size <= 32 else 32


def wkv_shapes(
    batch: int, length: int, n_head: int, head_size: int, *, keep: bool
) -> tuple[Shapes, Shapes]:
    """Arrays that belong to one layer, and arrays that layers can share."""
    c = chunk_size(head_size)
    n, width = -(-length // c), n_head * head_size
    rows = (batch, n, 2 * c, width)
    kept: Shapes = dict.fromkeys(INPUTS, (batch, n * c, width))
    kept |= {
        "queries": rows,
        "keys": rows,
        "values": rows,  # U above V
        "scores": (batch, n, n_head, 2 * c, 2 * c),
        "inverse": (batch, n, n_head, c, c),
        "gamma": (batch, n, c, width),
        "inverse_gamma": (batch, n, c, width),
        "gamma_before": (batch, n, c, width),
        "states": (n + 1, batch, n_head, head_size, head_size),
    }
    span = min(n, SPAN)
    some = (batch, span, 2 * c, width)
    shared: Shapes = {
        "reads": (batch, span, n_head, 2 * c, head_size),
        "inner": (batch, span, n_head, c, head_size),
        "y": (batch, n * c, width),
    }
    if keep:
        shared |= {f"d{name}": (batch, n * c, width) for name in INPUTS}
        shared |= dict.fromkeys(("dout", "dqueries", "dkeys", "scratch"), some)
        shared |= {
            "dscores": (batch, span, n_head, 2 * c, 2 * c),
            "dstates": (span + 1, batch, n_head, head_size, head_size),
            "dstate": (batch, n_head, head_size, head_size),
        }
    return kept, shared


class WKV:
    """The recurrence over arrays of one shape, which it holds or is given.

    Write the inputs into r, log_w, k, v, q, b (views [B, T, C]), call forward, read y; write dy
    into `dy`, call backward, read dr .. db. states[0] is the state before the first token,
    states[-1] the one after the last, each [B, H, D, D].
    """

    def __init__(
        self,
        batch: int,
        length: int,
        n_head: int,
        head_size: int,
        *,
        dtype: DTypeLike,
        keep: bool = True,
        kept: dict[str, Array] | None = None,
        shared: dict[str, Array] | None = None,
    ) -> None:
        kept_shapes, shared_shapes = wkv_shapes(batch, length, n_head, head_size, keep=keep)
        kept = dict(FlatTable(kept_shapes, dtype=dtype)) if kept is None else kept
        shared = dict(FlatTable(shared_shapes, dtype=dtype)) if shared is None else shared
        c = self.chunk = chunk_size(head_size)
        self.n_chunk = -(-length // c)
        self.n_head, self.head_size = n_head, head_size
        self._kept, self._shared = kept, shared
        # rows after the last token stay zero: they change no state and receive no gradient
        self.r, self.log_w, self.k, self.v, self.q, self.b = (
            kept[name][:, :length] for name in INPUTS
        )
        self.y = shared["y"][:, :length]
        if keep:
            self.dy = shared["y"][:, :length]
            self.dr, self.dlog_w, self.dk, self.dv, self.dq, self.db = (
                shared[f"d{name}"][:, :length] for name in INPUTS
            )
        self.states = kept["states"]
        self._lower = np.tri(c, dtype=dtype)
        strict = np.tri(c, k=-1, dtype=dtype)
        self._mask = np.block([[strict, strict], [self._lower, self._lower]])
        self._borders: _Borders | None = None

    def forward(self, reset: Array | None = None) -> Array:
        """y [B, T, C]. reset [B, T]: True where the state is emptied before the token."""
        self._mask_documents(reset)
        for first in range(0, self.n_chunk, SPAN):
            self._forward(slice(first, min(first + SPAN, self.n_chunk)))
        return self.y

    def backward(self) -> None:
        """From dy to dr, dlog_w, dk, dv, dq and db; no gradient enters at the last state."""
        self._shared["dstate"][...] = 0
        for first in reversed(range(0, self.n_chunk, SPAN)):
            self._backward(slice(first, min(first + SPAN, self.n_chunk)))

    def _part(self, name: str, span: slice) -> Array:
        """The span's chunks of an array of all chunks or tokens, [B, n, ...]."""
        array = self._kept[name] if name in self._kept else self._shared[name]
        if array.ndim == 3:  # of tokens
            array = array.reshape(len(array), self.n_chunk, self.chunk, -1)
        return array[:, span]

    def _room(self, name: str, span: slice) -> Array:
        """Scratch for a span's chunks, [B, n, ...]."""
        return self._shared[name][:, : span.stop - span.start]

    def _heads(self, x: Array) -> Array:
        """[B, n, rows, C] seen as [B, n, H, rows, D]."""
        return x.reshape(*x.shape[:3], self.n_head, self.head_size).swapaxes(2, 3)

    def _ends(self, span: slice) -> Array:
        """gamma of each chunk's last token [B, n, H, 1, D]."""
        ends = self._part("gamma", span)[:, :, -1]
        return ends.reshape(*ends.shape[:2], self.n_head, 1, self.head_size)

    def _forward(self, span: slice) -> None:
        c, borders, states = self.chunk, self._borders, self.states[span.start : span.stop + 1]
        part = {name: self._part(name, span) for name in (*self._kept, "y") if name != "states"}
        self._decays(part)
        queries, keys, values = part["queries"], part["keys"], part["values"]
        np.multiply(part["q"], part["gamma_before"], out=queries[:, :, :c])
        np.multiply(part["r"], part["gamma"], out=queries[:, :, c:])
        np.multiply(part["b"], part["inverse_gamma"], out=keys[:, :, :c])
        np.multiply(part["k"], part["inverse_gamma"], out=keys[:, :, c:])
        np.copyto(values[:, :, c:], part["v"])
        queries, keys, values = self._heads(queries), self._heads(keys), self._heads(values)
        scores, inverse = part["scores"], part["inverse"]
        inner, reads = self._room("inner", span), self._room("reads", span)
        np.matmul(queries, keys.swapaxes(-1, -2), out=scores)
        scores *= self._mask if borders is None else borders.mask[:, span]
        unit_lower_inverse(scores[..., :c, :c], out=inverse)
        np.matmul(scores[..., :c, c:], values[..., c:, :], out=inner)
        ends = self._ends(span)
        if borders is not None:
            keys = keys * borders.tail[:, span]
        for i in range(span.stop - span.start):
            before, after = states[i], states[i + 1]
            np.matmul(queries[:, i], before.swapaxes(-1, -2), out=reads[:, i])
            if borders is not None:
                reads[:, i] *= borders.live[:, span.start + i]
            inner[:, i] += reads[:, i, :, :c]
            np.matmul(inverse[:, i], inner[:, i], out=values[:, i, :, :c])
            np.matmul(values[:, i].swapaxes(-1, -2), keys[:, i], out=after)
            after += before if borders is None else before * borders.whole[:, span.start + i]
            after *= ends[:, i]
        y = self._heads(part["y"])
        np.matmul(scores[..., c:, :], values, out=y)
        y += reads[..., c:, :]

    def _decays(self, part: dict[str, Array]) -> None:
        """gamma, 1 / gamma and gamma of the token before, from log_w."""
        total, before, inverse = part["gamma"], part["gamma_before"], part["inverse_gamma"]
        np.matmul(self._lower, part["log_w"], out=total)
        np.subtract(total, part["log_w"], out=before)
        np.exp(before, out=before)
        np.negative(total, out=inverse)
        np.exp(inverse, out=inverse)
        np.exp(total, out=total)

    def _backward(self, span: slice) -> None:
        c, borders, states = self.chunk, self._borders, self.states[span.start : span.stop + 1]
        dstates = self._shared["dstates"][: span.stop - span.start + 1]
        names = ("queries", "keys", "values", "scores", "inverse")
        queries, keys, values, scores, inverse = (self._part(name, span) for name in names)
        queries, keys, values = self._heads(queries), self._heads(keys), self._heads(values)
        dvalues, inner = self._room("reads", span), self._room("inner", span)
        dout = self._heads(self._room("dout", span))  # [dinner; dy]
        np.copyto(self._room("dout", span)[:, :, c:], self._part("y", span))
        np.matmul(scores[..., c:, :c].swapaxes(-1, -2), dout[..., c:, :], out=inner)
        ends = self._ends(span)
        passed_on = keys if borders is None else keys * borders.tail[:, span]
        dstates[-1] = self._shared["dstate"]
        for i in reversed(range(span.stop - span.start)):
            dnow, dbefore, read = dstates[i + 1], dstates[i], dout[:, i]
            dnow *= ends[:, i]
            np.matmul(passed_on[:, i], dnow.swapaxes(-1, -2), out=dvalues[:, i])
            inner[:, i] += dvalues[:, i, :, :c]
            np.matmul(inverse[:, i].swapaxes(-1, -2), inner[:, i], out=dout[:, i, :, :c])
            if borders is not None:
                read = read * borders.live[:, span.start + i]
            np.matmul(read.swapaxes(-1, -2), queries[:, i], out=dbefore)
            dbefore += dnow if borders is None else dnow * borders.whole[:, span.start + i]
        self._shared["dstate"][...] = dstates[0]
        dscores = self._room("dscores", span)
        np.matmul(dout, values.swapaxes(-1, -2), out=dscores)
        dscores *= self._mask if borders is None else borders.mask[:, span]
        dqueries, dkeys, scratch = (
            self._heads(self._room(name, span)) for name in ("dqueries", "dkeys", "scratch")
        )
        dreads = dout if borders is None else dout * borders.live[:, span]
        np.matmul(dreads, states[:-1].swapaxes(0, 1), out=dqueries)
        np.matmul(dscores, keys, out=scratch)
        dqueries += scratch
        np.matmul(values, dstates[1:].swapaxes(0, 1), out=dkeys)
        if borders is not None:
            dkeys *= borders.tail[:, span]
        np.matmul(dscores.swapaxes(-1, -2), queries, out=scratch)
        dkeys += scratch
        dv = self._heads(self._part("dv", span))
        np.matmul(scores[..., c:].swapaxes(-1, -2), dout, out=dv)
        dv += dvalues[..., c:, :]
        self._inputs_backward(span, states[1:], dstates[1:])

    def _inputs_backward(self, span: slice, after: Array, dafter: Array) -> None:
        """From the gradients of Q, K and the states to those of the inputs.

        d log gamma_t = r dr + q_(t+1) dq_(t+1) - b db - k dk, and at a chunk's end what its state
        passed on; log gamma_t is a sum up to t, so d log w is a sum from t on. dafter has been
        multiplied by gamma of the chunk's end.
        """
        c = self.chunk
        dqueries, dkeys, scratch = (
            self._room(name, span) for name in ("dqueries", "dkeys", "scratch")
        )
        queries, dlog_w = self._part("queries", span), self._part("dlog_w", span)
        dend = np.einsum("nbhvk,nbhvk->bnhk", after, dafter).reshape(*dkeys.shape[:2], -1)
        dend /= self._part("gamma", span)[:, :, -1]
        np.multiply(self._part("keys", span), dkeys, out=scratch)
        total = np.add(scratch[:, :, :c], scratch[:, :, c:], out=scratch[:, :, :c])
        flow = np.multiply(queries[:, :, c:], dqueries[:, :, c:], out=scratch[:, :, c:])
        flow -= total
        own = np.multiply(queries[:, :, :c], dqueries[:, :, :c], out=scratch[:, :, :c])
        flow += own
        flow[:, :, -1] += dend
        np.matmul(self._lower.T, flow, out=dlog_w)
        dlog_w -= own
        over_gamma = self._part("inverse_gamma", span)
        before = self._part("gamma_before", span)
        np.multiply(dqueries[:, :, :c], before, out=self._part("dq", span))
        np.multiply(dqueries[:, :, c:], self._part("gamma", span), out=self._part("dr", span))
        np.multiply(dkeys[:, :, :c], over_gamma, out=self._part("db", span))
        np.multiply(dkeys[:, :, c:], over_gamma, out=self._part("dk", span))

    def _mask_documents(self, reset: Array | None) -> None:
        self._borders = None
        if reset is not None and reset.any():
            self._borders = _Borders.of(reset, self._mask, self.n_chunk, self.chunk)


@dataclass
class _Borders:
    """What a chunk's tokens may see of each other and of the states, with borders among them."""

    mask: Array  # [B, n, 1, 2c, 2c] in place of the mask of all chunks
    live: Array  # [B, n, 1, 2c, 1] rows that still see the state before the chunk
    tail: Array  # [B, n, 1, 2c, 1] rows that the state after the chunk still sees
    whole: Array  # [B, n, 1, 1, 1] chunks without a border

    @classmethod
    def of(cls, reset: Array, mask: Array, n_chunk: int, chunk: int) -> _Borders:
        """From reset [B, T] and the mask [2c, 2c] of a chunk without borders."""
        batch, length = reset.shape
        padded = np.zeros((batch, n_chunk * chunk), bool)
        padded[:, :length] = reset
        document = padded.reshape(batch, n_chunk, chunk).cumsum(axis=2)
        same = (document[..., :, None] == document[..., None, :])[:, :, None]
        twice = np.tile(document, 2)[:, :, None, :, None]
        last = document[:, :, -1, None, None, None]
        return cls(
            mask=np.tile(same, (2, 2)) * mask,
            live=(twice == 0).astype(mask.dtype),
            tail=(twice == last).astype(mask.dtype),
            whole=(last == 0).astype(mask.dtype),
        )
