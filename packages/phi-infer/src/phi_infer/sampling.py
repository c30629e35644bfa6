"""From logits to one token: bias, penalties, temperature, top-k, top-p, min-p, one random number.

The random number of a token depends on the seed and the token's position alone, so a seed means
the same text however it is produced.

>>> import numpy as np
>>> sample(np.array([0.0, 3.0, 1.0]), Sampling(temperature=0), position=0)
1
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.errors import SamplingError
from phi_infer.philox import uniform

__all__ = ["Sampling", "log_probabilities", "probabilities", "sample"]

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn. Raises SamplingError for a value out of range."""

    temperature: float = 0.8  # 0: always the most probable token
    top_k: int = 0  # keep the k most probable tokens; 0: all
    top_p: float = 1.0  # keep the fewest tokens whose probabilities reach this
    min_p: float = 0.0  # keep tokens at least this fraction as probable as the best
    repeat_penalty: float = 1.0  # divides the logits of tokens seen before (Keskar et al. 2019)
    frequency_penalty: float = 0.0  # taken off a logit for each time the token was drawn
    presence_penalty: float = 0.0  # taken off the logits of tokens drawn at least once
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # id -> added to its logit
    seed: int = 0

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0, math.inf)
        _check("top_k", self.top_k, 0, math.inf)
        _check("top_p", self.top_p, 0, 1)
        _check("min_p", self.min_p, 0, 1)
        _check("repeat_penalty", self.repeat_penalty, 0.01, 100)
        _check("frequency_penalty", self.frequency_penalty, -2, 2)
        _check("presence_penalty", self.presence_penalty, -2, 2)
        for token, bias in self.logit_bias.items():
            _check(f"logit_bias of token {token}", bias, -100, 100)
        _check("seed", self.seed, 0, 2**64 - 1)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        text = f"{low:g} or more" if math.isinf(high) else f"between {low:g} and {high:g}"
        raise SamplingError(f"{name} is {value}; it must be {text}")


def log_probabilities(logits: Array) -> Array:
    """The model's own log p [V] in nats, float64: before any setting of Sampling."""
    shifted = logits.astype(np.float64) - float(logits.max())
    result: Array = shifted - np.log(np.exp(shifted).sum())
    return result


def probabilities(
    logits: Array, sampling: Sampling, seen: Sequence[int] = (), *, drawn: Sequence[int] = ()
) -> Array:
    """The distribution [V], float64, that a token is drawn from (temperature above 0).

    seen: the ids so far, for repeat_penalty. drawn: those that were drawn, not given in a prompt,
    for frequency_penalty and presence_penalty.
    """
    ids, kept = _distribution(logits, sampling, seen, drawn)
    p: Array = np.zeros(logits.size)
    p[ids] = kept
    return p


def _distribution(
    logits: Array, sampling: Sampling, seen: Sequence[int], drawn: Sequence[int]
) -> tuple[Array, Array]:
    """The ids that can be drawn, ascending, and their probabilities."""
    logits = _penalised(logits, sampling, seen, drawn)
    ids = np.arange(logits.size)
    if 0 < sampling.top_k < logits.size:
        ids = _top_k(logits, sampling.top_k)
        logits = logits[ids]
    with np.errstate(over="ignore"):  # a tiny temperature: minus infinity, probability 0
        p = np.exp((logits - logits.max()) / sampling.temperature)
    p /= p.sum()
    if sampling.top_p < 1:
        kept = _top_p(p, sampling.top_p)
        ids, p = ids[kept], p[kept]
    if sampling.min_p > 0:
        kept = np.flatnonzero(p >= sampling.min_p * p.max())
        ids, p = ids[kept], p[kept]
    return ids, p / p.sum()


def _top_k(logits: Array, k: int) -> Array:
    """The ids of the k largest, ascending; of equals, the lower ones."""
    least = np.partition(logits, -k)[-k]
    above = np.flatnonzero(logits > least)
    equal = np.flatnonzero(logits == least)[: k - above.size]
    return np.sort(np.concatenate([above, equal]))


def _top_p(p: Array, top_p: float) -> Array:
    """The places, ascending, of the fewest, most probable ones that together reach top_p.

    All that are below (1 - top_p) / n make less than 1 - top_p together, so none of them is among
    the fewest: only the others are sorted.
    """
    candidates = np.flatnonzero(p >= min(0.5 * (1 - top_p) / p.size, p.max()))
    order = candidates[np.argsort(-p[candidates], kind="stable")]
    before = np.cumsum(p[order]) - p[order]
    before[0] = -1  # the most probable one always stays
    return np.sort(order[before < top_p])


def _penalised(
    logits: Array, sampling: Sampling, seen: Sequence[int], drawn: Sequence[int]
) -> Array:
    logits = logits.astype(np.float64)
    for token, bias in sampling.logit_bias.items():
        logits[token] += bias
    if sampling.repeat_penalty != 1 and len(seen):
        ids = np.unique(np.asarray(seen))
        penalty = sampling.repeat_penalty
        logits[ids] = np.where(logits[ids] > 0, logits[ids] / penalty, logits[ids] * penalty)
    if (sampling.frequency_penalty or sampling.presence_penalty) and len(drawn):
        ids, counts = np.unique(np.asarray(drawn), return_counts=True)
        logits[ids] -= sampling.frequency_penalty * counts + sampling.presence_penalty
    return logits


def sample(logits: Array, sampling: Sampling, *, position: int, seen: Sequence[int] = ()) -> int:
    """One token id for logits [V].

    position: how many tokens were drawn before it; they are the last of seen, the ids so far.
    """
    drawn = seen[len(seen) - position :] if position <= len(seen) else seen
    if sampling.temperature == 0:
        return int(np.argmax(_penalised(logits, sampling, seen, drawn)))
    ids, p = _distribution(logits, sampling, seen, drawn)
    cumulative = np.cumsum(p)
    drawn_at = uniform(sampling.seed, position) * cumulative[-1]
    place = int(np.searchsorted(cumulative, drawn_at, side="right"))
    return int(ids[min(place, ids.size - 1)])
