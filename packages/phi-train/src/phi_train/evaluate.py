"""A model's loss on a token stream: every token once, windows without overlap.

The stream's first token is predicted from an end token; later windows start without a memory of
the one before, as shared by every figure in this project.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_model import LanguageModel
from phi_train.tokens import TokenStream, windows

__all__ = ["TOKENS_AT_ONCE", "Evaluation", "evaluate"]

Array = NDArray[Any]

TOKENS_AT_ONCE = 2048  # a batch of windows: large enough to be fast, small enough for a phone


@dataclass(frozen=True)
class Evaluation:
    """Losses over one stream."""

    loss: float  # nats a token
    bits_per_byte: float  # all nats, end tokens included, over the bytes of the text alone
    tokens: int
    documents: int
    text_bytes: int
    floor: float | None = None  # the source's own bits a byte on the same documents, if known
    gap: float | None = None  # bits a byte above it
    gap_error: float | None = None  # the standard error of gap, documents paired

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(min(self.loss, 700))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values: dict[str, Any] = {
            "loss": self.loss,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "tokens": self.tokens,
            "documents": self.documents,
            "text_bytes": self.text_bytes,
        }
        if self.gap is not None:
            values |= {"floor": self.floor, "gap": self.gap, "gap_error": self.gap_error}
        return values

    @classmethod
    def from_final(cls, line: Mapping[str, Any]) -> Evaluation:
        """What a finished run measured, from the last line of its metrics.jsonl."""
        return cls(
            loss=line["final_loss"],
            bits_per_byte=line["bits_per_byte"],
            tokens=line["valid_tokens"],
            documents=line.get("valid_documents", 0),
            text_bytes=line["text_bytes"],
            floor=line.get("floor"),
            gap=line.get("gap"),
            gap_error=line.get("gap_error"),
        )

    @property
    def floor_loss(self) -> float | None:
        """The floor in nats a token, on the same tokens."""
        if self.floor is None:
            return None
        return self.floor * math.log(2) * self.text_bytes / self.tokens

    @property
    def above_floor(self) -> str:
        """The gap in words; empty where the source's own entropy is not known."""
        if self.gap is None:
            return ""
        return (
            f"{self.gap:.4f} +- {self.gap_error:.4f} bits a byte above the floor "
            f"({self.floor:.4f}, the source's own)"
        )


def evaluate(
    model: LanguageModel, stream: TokenStream, *, seq_len: int | None = None
) -> Evaluation:
    """Measures `model` on the whole stream, windows of seq_len (the model's own by default)."""
    length = model.config.seq_len if seq_len is None else seq_len
    token_nats = -_token_log_probs(model, stream, length)
    nats = float(token_nats.sum())
    floor, gap, gap_error = _above_floor(token_nats, stream)
    return Evaluation(
        loss=nats / stream.ids.size,
        bits_per_byte=stream.bits_per_byte(nats),
        tokens=stream.ids.size,
        documents=stream.n_documents,
        text_bytes=stream.text_bytes,
        floor=floor,
        gap=gap,
        gap_error=gap_error,
    )


def _token_log_probs(model: LanguageModel, stream: TokenStream, length: int) -> Array:
    """log p of each token of the stream [M] in nats, float64."""
    contexts, targets = stream.contexts, stream.ids
    batch_size = max(1, TOKENS_AT_ONCE // length)
    log_probs = np.empty(targets.size)
    for start, rows, columns in windows(length, targets.size, batch_size):
        part = slice(start, start + rows * columns)
        log_probs[part] = model.token_log_probs(
            contexts[part].reshape(rows, columns), targets[part].reshape(rows, columns)
        ).ravel()
    return log_probs


def _above_floor(
    token_nats: Array, stream: TokenStream
) -> tuple[float, float, float] | tuple[None, None, None]:
    """(floor, gap, standard error of the gap) in bits a byte, from the same documents.

    Model and source are paired document by document, so what makes a document long or odd
    cancels. A ratio of sums; its error is that of the residuals (Cochran 1977, section 2.11).
    """
    if stream.source_nats is None or stream.document_bytes is None:
        return None, None, None
    ends = np.flatnonzero(stream.ids == stream.end_token)
    model_nats = np.add.reduceat(token_nats, np.r_[0, ends[:-1] + 1])
    sizes = stream.document_bytes
    differences = (model_nats - stream.source_nats) / math.log(2)
    gap = float(differences.sum() / sizes.sum())
    residuals = differences - gap * sizes
    error = float(np.sqrt(residuals.var(ddof=1) / sizes.size) / sizes.mean())
    return stream.bits_per_byte(float(stream.source_nats.sum())), gap, error
