"""A model's loss on a token stream: every token once, windows without overlap.

The stream's first token is predicted from an end token; later windows start without a memory of
the one before, as shared by every figure in this project.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from phi_model import GPT
from phi_train.tokens import TokenStream, windows

__all__ = ["TOKENS_AT_ONCE", "Evaluation", "evaluate"]

TOKENS_AT_ONCE = 2048  # a batch of windows: large enough to be fast, small enough for a phone


@dataclass(frozen=True)
class Evaluation:
    """Losses over one stream."""

    loss: float  # nats a token
    bits_per_byte: float  # all nats, end tokens included, over the bytes of the text alone
    tokens: int
    documents: int
    text_bytes: int

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(min(self.loss, 700))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "loss": self.loss,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "tokens": self.tokens,
            "documents": self.documents,
            "text_bytes": self.text_bytes,
        }


def evaluate(model: GPT, stream: TokenStream, *, seq_len: int | None = None) -> Evaluation:
    """Measures `model` on the whole stream, windows of seq_len (the model's own by default)."""
    length = model.config.seq_len if seq_len is None else seq_len
    nats = -float(sum(_window_log_probs(model, stream, length)))
    return Evaluation(
        loss=nats / stream.ids.size,
        bits_per_byte=stream.bits_per_byte(nats),
        tokens=stream.ids.size,
        documents=stream.n_documents,
        text_bytes=stream.text_bytes,
    )


def _window_log_probs(model: GPT, stream: TokenStream, length: int) -> list[float]:
    """The sum of log-probabilities in nats of each batch of windows."""
    contexts, targets = stream.contexts, stream.ids
    batch_size = max(1, TOKENS_AT_ONCE // length)
    sums = []
    for start, rows, columns in windows(length, targets.size, batch_size):
        part = slice(start, start + rows * columns)
        log_probs = model.token_log_probs(
            contexts[part].reshape(rows, columns), targets[part].reshape(rows, columns)
        )
        sums.append(float(log_probs.sum(dtype=np.float64)))
    return sums
