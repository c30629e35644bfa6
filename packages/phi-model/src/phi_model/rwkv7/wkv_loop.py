"""RWKV-7's recurrence token by token, forward and backward: plain, slow, and the definition.

    S_t = S_(t-1) diag(w_t) + (S_(t-1) q_t) b_t^T + v_t k_t^T,    y_t = S_t r_t

S [D, D] for each head: rows are channels of the values, columns channels of the keys. In RWKV-7
q is kappa and b is -kappa * a. phi_model.rwkv7.wkv_chunked computes the same by matrix products.
Derived in docs/rwkv7.md, section 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["wkv_loop", "wkv_loop_backward"]

Array = NDArray[Any]


def wkv_loop(
    r: Array, log_w: Array, k: Array, v: Array, q: Array, b: Array, state: Array
) -> tuple[Array, Array]:
    """y [B, T, H, D] and all states [T + 1, B, H, D, D] for inputs [B, T, H, D].

    state [B, H, D, D] is the one before the first token.
    """
    w = np.exp(log_w)
    y = np.empty_like(v)
    states = np.empty((r.shape[1] + 1, *state.shape), state.dtype)
    states[0] = state
    for t in range(r.shape[1]):
        before, after = states[t], states[t + 1]
        read = before @ q[:, t, :, :, None]
        np.multiply(before, w[:, t, :, None, :], out=after)
        after += read * b[:, t, :, None, :]
        after += v[:, t, :, :, None] * k[:, t, :, None, :]
        y[:, t] = (after @ r[:, t, :, :, None])[..., 0]
    return y, states


def wkv_loop_backward(
    dy: Array, r: Array, log_w: Array, k: Array, v: Array, q: Array, b: Array, states: Array
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Gradients of r, log_w, k, v, q, b; states as wkv_loop returned them, none after the last.

    With G the gradient of S_t, which begins as dy_t r_t^T + what comes from S_(t+1):
    dr = S_t^T dy,  dv = G k,  dk = G^T v,  db = G^T (S q),  dq = S^T (G b),  dlog_w = w sum_v G S,
    and S_(t-1) receives G diag(w) + (G b) q^T; S stands for S_(t-1) here.
    """
    w = np.exp(log_w)
    dr, dlog_w, dk, dv, dq, db = (np.empty_like(r) for _ in range(6))
    g = np.zeros_like(states[0])
    for t in reversed(range(r.shape[1])):
        before, after = states[t], states[t + 1]
        dr[:, t] = (dy[:, t, :, None, :] @ after)[..., 0, :]
        g += dy[:, t, :, :, None] * r[:, t, :, None, :]
        dv[:, t] = (g @ k[:, t, :, :, None])[..., 0]
        dk[:, t] = (v[:, t, :, None, :] @ g)[..., 0, :]
        read = before @ q[:, t, :, :, None]
        db[:, t] = (read.swapaxes(-1, -2) @ g)[..., 0, :]
        dread = g @ b[:, t, :, :, None]
        dq[:, t] = (dread.swapaxes(-1, -2) @ before)[..., 0, :]
        g *= w[:, t, :, None, :]
        dlog_w[:, t] = (g * before).sum(axis=-2)
        g += dread * q[:, t, :, None, :]
    return dr, dlog_w, dk, dv, dq, db
