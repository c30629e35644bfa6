"""How probable a text is to a model: a log-probability for each token, and bits a byte."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Score"]


@dataclass(frozen=True)
class Score:
    """The tokens of a text and log p of each, in nats, given all before it.

    >>> Score(ids=[65, 66], log_probs=[-1.0, -2.0], n_bytes=2).loss
    1.5
    """

    ids: list[int]
    log_probs: list[float]
    n_bytes: int  # of the text in UTF-8

    @property
    def nats(self) -> float:
        """Minus the log-probability of the whole text."""
        return -math.fsum(self.log_probs)

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nats / len(self.ids) if self.ids else math.nan

    @property
    def perplexity(self) -> float:
        """e to the loss: among how many equally probable tokens the model hesitates."""
        return math.exp(min(self.loss, 700.0))

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers."""
        return self.nats / (math.log(2) * self.n_bytes) if self.n_bytes else math.nan
