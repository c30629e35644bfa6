"""RWKV-7's recurrence one token after the other in numpy, as fast as a loop gets.

Everything lies in the order of time, is allocated before, and two outer products are one product
of two columns with two rows. phi_model.rwkv7.wkv_loop is the same, plainer.
"""

from __future__ import annotations

import numpy as np


class FastLoop:
    """Inputs r, log_w, k, v, q, b and dy [T, M, D] for M heads of a batch."""

    def __init__(self, inputs: dict[str, np.ndarray], state: np.ndarray) -> None:
        self.x, self.w = inputs, np.exp(inputs["log_w"])
        length, heads, size = inputs["r"].shape
        dtype = state.dtype
        self.states = np.empty((length + 1, heads, size, size), dtype)
        self.states[0] = state
        self.columns = np.empty((length, heads, size, 2), dtype)  # S q, v
        self.columns[..., 1] = inputs["v"]
        self.rows = np.stack([inputs["b"], inputs["k"]], axis=-2)
        self.y = np.empty((length, heads, size, 1), dtype)
        self.drows, self.dcolumns = np.empty_like(self.rows), np.empty_like(self.columns)
        self.dr, self.dq, self.dlog_w = (np.empty((length, heads, 1, size), dtype) for _ in "rqw")
        self._update = np.empty_like(state)
        self._g = np.empty_like(state)
        self._read = np.empty((heads, size, 1), dtype)

    def forward(self) -> None:
        """Fills y and states."""
        q, r, w, update = self.x["q"][..., None], self.x["r"][..., None], self.w, self._update
        for t in range(len(q)):
            before, after = self.states[t], self.states[t + 1]
            np.matmul(before, q[t], out=self._read)
            self.columns[t, :, :, :1] = self._read
            np.multiply(before, w[t, :, None, :], out=after)
            np.matmul(self.columns[t], self.rows[t], out=update)
            np.add(after, update, out=after)
            np.matmul(after, r[t], out=self.y[t])

    def backward(self) -> None:
        """From x["dy"] to dr, dq, dlog_w, drows (b, k) and dcolumns (S q, v)."""
        q, r = self.x["q"][:, :, None], self.x["r"][:, :, None]
        dy, w, g, update = self.x["dy"][..., None], self.w[:, :, None], self._g, self._update
        g[...] = 0
        for t in reversed(range(len(q))):
            before, after = self.states[t], self.states[t + 1]
            np.matmul(dy[t].swapaxes(1, 2), after, out=self.dr[t])
            np.multiply(dy[t], r[t], out=update)
            np.add(g, update, out=g)
            np.matmul(g, self.rows[t].swapaxes(1, 2), out=self.dcolumns[t])
            np.matmul(self.columns[t].swapaxes(1, 2), g, out=self.drows[t])
            dread = self.dcolumns[t, :, :, :1]
            np.matmul(dread.swapaxes(1, 2), before, out=self.dq[t])
            np.multiply(g, w[t], out=g)
            np.multiply(g, before, out=update)
            np.add.reduce(update, axis=1, out=self.dlog_w[t, :, 0])
            np.multiply(dread, q[t], out=update)
            np.add(g, update, out=g)
