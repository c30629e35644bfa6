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

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from phi_model.parameters import FlatTable
from phi_model.rwkv7.unit_lower_inverse import unit_lower_inverse

__all__ = ["WKV", "chunk_size", "wkv_shapes"]

Array = NDArray[Any]
Shapes = dict[str, tuple[int, ...]]

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
    shared: Shapes = {
        "reads": (batch, n, n_head, 2 * c, head_size),
        "inner": (batch, n, n_head, c, head_size),
        "y": (batch, n * c, width),
    }
    if keep:
        shared |= {f"d{name}": (batch, n * c, width) for name in INPUTS}
        shared |= dict.fromkeys(("dout", "dqueries", "dkeys", "scratch"), rows)
        shared |= {
            "dscores": (batch, n, n_head, 2 * c, 2 * c),
            "dstates": (n + 1, batch, n_head, head_size, head_size),
            "dend": (batch, n, width),
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
        self._base: Array | None = None
        self._live: Array | None = None

    def _chunks(self, x: Array) -> Array:
        """[B, T, C] seen as [B, n, c, C]."""
        return x.reshape(len(x), self.n_chunk, self.chunk, -1)

    def _heads(self, x: Array) -> Array:
        """[B, n, rows, C] seen as [B, n, H, rows, D]."""
        return x.reshape(*x.shape[:3], self.n_head, self.head_size).swapaxes(2, 3)

    def forward(self, reset: Array | None = None) -> Array:
        """y [B, T, C]. reset [B, T]: True where the state is emptied before the token."""
        k, s, c = self._kept, self._shared, self.chunk
        self._mask_documents(reset)
        self._decays()
        queries, keys, values = k["queries"], k["keys"], k["values"]
        gamma, over_gamma = k["gamma"], k["inverse_gamma"]
        np.multiply(self._chunks(k["q"]), k["gamma_before"], out=queries[:, :, :c])
        np.multiply(self._chunks(k["r"]), gamma, out=queries[:, :, c:])
        np.multiply(self._chunks(k["b"]), over_gamma, out=keys[:, :, :c])
        np.multiply(self._chunks(k["k"]), over_gamma, out=keys[:, :, c:])
        np.copyto(values[:, :, c:], self._chunks(k["v"]))
        qh, kh, vh = self._heads(queries), self._heads(keys), self._heads(values)
        scores, inner, reads = k["scores"], s["inner"], s["reads"]
        np.matmul(qh, kh.swapaxes(-1, -2), out=scores)
        scores *= self._mask if self._live is None else self._document_mask
        unit_lower_inverse(scores[..., :c, :c], out=k["inverse"])
        np.matmul(scores[..., :c, c:], vh[..., c:, :], out=inner)
        ends = gamma[:, :, -1].reshape(len(gamma), self.n_chunk, self.n_head, 1, self.head_size)
        tail_keys = kh if self._live is None else kh * self._tail
        for i in range(self.n_chunk):
            before, after = self.states[i], self.states[i + 1]
            np.matmul(qh[:, i], before.swapaxes(-1, -2), out=reads[:, i])
            if self._live is not None:
                reads[:, i] *= self._live[:, i]
            inner[:, i] += reads[:, i, :, :c]
            np.matmul(k["inverse"][:, i], inner[:, i], out=vh[:, i, :, :c])
            np.matmul(vh[:, i].swapaxes(-1, -2), tail_keys[:, i], out=after)
            after += before if self._live is None else before * self._whole[:, i]
            after *= ends[:, i]
        y = self._heads(self._chunks(s["y"]))
        np.matmul(scores[..., c:, :], vh, out=y)
        y += reads[..., c:, :]
        return self.y

    def backward(self) -> None:
        """From dy to dr, dlog_w, dk, dv, dq and db; no gradient enters at the last state."""
        k, s, c = self._kept, self._shared, self.chunk
        queries, keys = k["queries"], k["keys"]
        qh, kh, vh = self._heads(queries), self._heads(keys), self._heads(k["values"])
        scores, dscores, states, dstates = k["scores"], s["dscores"], self.states, s["dstates"]
        dout = self._heads(s["dout"])  # [dinner; dy]
        dvalues, inner = s["reads"], s["inner"]
        np.copyto(s["dout"][:, :, c:], self._chunks(s["y"]))
        np.matmul(scores[..., c:, :c].swapaxes(-1, -2), dout[..., c:, :], out=inner)
        gamma = k["gamma"]
        ends = gamma[:, :, -1].reshape(len(gamma), self.n_chunk, self.n_head, 1, self.head_size)
        live, masked = self._live, self._live is not None
        tail_keys = kh * self._tail if masked else kh
        dreads = dout
        dstates[-1] = 0
        for i in reversed(range(self.n_chunk)):
            dnow, dbefore = dstates[i + 1], dstates[i]
            dnow *= ends[:, i]
            np.matmul(tail_keys[:, i], dnow.swapaxes(-1, -2), out=dvalues[:, i])
            inner[:, i] += dvalues[:, i, :, :c]
            np.matmul(k["inverse"][:, i].swapaxes(-1, -2), inner[:, i], out=dout[:, i, :, :c])
            dread = dout[:, i] * live[:, i] if live is not None else dout[:, i]
            np.matmul(dread.swapaxes(-1, -2), qh[:, i], out=dbefore)
            dbefore += dnow * self._whole[:, i] if masked else dnow
        if live is not None:
            dreads = dout * live
        dqueries, dkeys = self._heads(s["dqueries"]), self._heads(s["dkeys"])
        scratch = self._heads(s["scratch"])
        np.matmul(dout, vh.swapaxes(-1, -2), out=dscores)
        dscores *= self._document_mask if masked else self._mask
        np.matmul(dreads, states[:-1].swapaxes(0, 1), out=dqueries)
        np.matmul(dscores, kh, out=scratch)
        s["dqueries"] += s["scratch"]
        np.matmul(vh, dstates[1:].swapaxes(0, 1), out=dkeys)
        if masked:
            dkeys *= self._tail
        np.matmul(dscores.swapaxes(-1, -2), qh, out=scratch)
        s["dkeys"] += s["scratch"]
        dv = self._heads(self._chunks(s["dv"]))
        np.matmul(scores[..., c:].swapaxes(-1, -2), dout, out=dv)
        dv += dvalues[..., c:, :]
        self._inputs_backward()

    def _decays(self) -> None:
        """gamma, 1 / gamma and gamma of the token before, from log_w."""
        k = self._kept
        total, before = k["gamma"], k["gamma_before"]
        np.matmul(self._lower, self._chunks(k["log_w"]), out=total)
        np.subtract(total, self._chunks(k["log_w"]), out=before)
        np.exp(before, out=before)
        np.negative(total, out=k["inverse_gamma"])
        np.exp(k["inverse_gamma"], out=k["inverse_gamma"])
        np.exp(total, out=total)

    def _inputs_backward(self) -> None:
        """From the gradients of Q, K and gamma to those of the inputs.

        d log gamma_t = r dr + q_(t+1) dq_(t+1) - b db - k dk, and at a chunk's end what its state
        passed on; log gamma_t is a sum up to t, so d log w is a sum from t on.
        """
        k, s, c = self._kept, self._shared, self.chunk
        dqueries, dkeys, scratch = s["dqueries"], s["dkeys"], s["scratch"]
        chunks = self._chunks
        after, dafter = self.states[1:], s["dstates"][1:]
        ends = k["gamma"][:, :, -1]
        dend = np.einsum("nbhvk,nbhvk->bnhk", after, dafter).reshape(s["dend"].shape)
        dend /= ends  # dafter has been multiplied by gamma
        np.multiply(k["keys"], dkeys, out=scratch)
        total = np.add(scratch[:, :, :c], scratch[:, :, c:], out=scratch[:, :, :c])
        dlog_w = chunks(s["dlog_w"])
        flow = np.multiply(k["queries"][:, :, c:], dqueries[:, :, c:], out=scratch[:, :, c:])
        flow -= total
        own = np.multiply(k["queries"][:, :, :c], dqueries[:, :, :c], out=scratch[:, :, :c])
        flow += own
        flow[:, :, -1] += dend
        np.matmul(self._lower.T, flow, out=dlog_w)
        dlog_w -= own
        np.multiply(dqueries[:, :, :c], k["gamma_before"], out=chunks(s["dq"]))
        np.multiply(dqueries[:, :, c:], k["gamma"], out=chunks(s["dr"]))
        np.multiply(dkeys[:, :, :c], k["inverse_gamma"], out=chunks(s["db"]))
        np.multiply(dkeys[:, :, c:], k["inverse_gamma"], out=chunks(s["dk"]))

    def _mask_documents(self, reset: Array | None) -> None:
        """What a chunk's tokens may see of each other and of the states, with borders in it."""
        self._live = None
        if reset is None or not reset.any():
            return
        batch, length = reset.shape
        padded = np.zeros((batch, self.n_chunk * self.chunk), bool)
        padded[:, :length] = reset
        document = padded.reshape(batch, self.n_chunk, self.chunk).cumsum(axis=2)
        same = (document[..., :, None] == document[..., None, :])[:, :, None]
        self._document_mask = np.tile(same, (2, 2)) * self._mask
        twice = np.tile(document, 2)[:, :, None, :, None]
        dtype = self._mask.dtype
        self._live = (twice == 0).astype(dtype)  # rows that still see the chunk's first state
        last = document[:, :, -1, None, None, None]
        self._tail = (twice == last).astype(dtype)  # rows that the next state still sees
        self._whole = (last == 0).astype(dtype)
