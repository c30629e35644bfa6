"""RMSNorm over each head's queries or keys before RoPE, in place (Henry et al. 2020,
arXiv:2010.04245, with RMSNorm as in Dehghani et al. 2023, arXiv:2302.05442).

    normed = x * rrms,    y = gain * normed,    rrms = (mean over D of x^2 + eps)^(-1/2)

All heads share one gain [D], so scores keep their size however large the weights grow.
Derived in docs/gradients.md, section 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["qk_norm", "qk_norm_backward"]

Array = NDArray[Any]


def qk_norm(x: Array, gain: Array, eps: float, *, normed: Array, rrms: Array) -> None:
    """Turns x [H, D, N] into y; writes normed [H, D, N] and rrms [H, 1, N] for gain [D]."""
    np.multiply(x, x, out=normed)
    np.matmul(np.full((1, gain.size), 1 / gain.size, x.dtype), normed, out=rrms)
    rrms += eps
    np.sqrt(rrms, out=rrms)
    np.reciprocal(rrms, out=rrms)
    np.multiply(x, rrms, out=normed)
    np.multiply(normed, gain[:, None], out=x)


def qk_norm_backward(
    dy: Array, gain: Array, *, normed: Array, rrms: Array, dgain: Array, scratch: Array
) -> None:
    """Turns dy [H, D, N] into dx and writes dgain [D].

    dgain = sum over heads and tokens of dy * normed
    dx    = rrms * (gain * dy - normed * mean over D of (gain * dy * normed))
    """
    np.multiply(dy, normed, out=scratch)
    np.sum(scratch, axis=(0, 2), out=dgain)
    projection = np.matmul(gain[None] / gain.size, scratch)
    np.multiply(normed, projection, out=scratch)
    dy *= gain[:, None]
    dy -= scratch
    dy *= rrms
