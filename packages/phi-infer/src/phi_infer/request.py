"""One text in the making: draws tokens from logits and says when to end.

It knows no model: whoever has one feeds it logits, alone or in a batch. What it draws depends on
those, its settings and its seed alone, so a stream, a batch and a server make the same text.

    request = Request(tokenizer, prompt_ids, sampling=Sampling(seed=1), max_tokens=9)
    while request.finish is None:
        token, piece = request.draw(logits)       # show the piece; feed the token to the model
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.errors import ModelError
from phi_infer.sampling import Sampling, log_probabilities, sample
from phi_infer.stop import StopText
from phi_tokenizer import Tokenizer

__all__ = ["Completion", "Request", "TokenChoice"]

Array = NDArray[Any]


@dataclass(frozen=True)
class TokenChoice:
    """A token that was drawn, and what the model thought of it and of others, in nats."""

    id: int
    log_prob: float
    alternatives: list[tuple[int, float]]  # the most probable ones: (id, log p)


@dataclass(frozen=True)
class Completion:
    """A finished text.

    finish: "end" (the model ended it), "stop" (a stop string), "length" (max_tokens), "context"
    (the trained context was full). ids: the tokens drawn, those of a stop string too.
    """

    text: str
    finish: str
    ids: list[int]
    seed: int
    choices: list[TokenChoice] = field(default_factory=list)  # where log_probs was asked for


class Request:
    """The state of one text.

    log_probs: None, or how many alternatives to note with each token. end_token: the id that ends
    a text. limit: tokens that the model may read, prompt included; None: any number.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        *,
        sampling: Sampling,
        max_tokens: int,
        stop: Sequence[str] = (),
        end_token: int | None = None,
        log_probs: int | None = None,
        limit: int | None = None,
    ) -> None:
        self.seen = list(prompt_ids)
        self.sampling = sampling
        self.choices: list[TokenChoice] = []
        self.finish: str | None = None if max_tokens else "length"
        self._n_prompt = len(self.seen)
        self._n_vocab = tokenizer.n_vocab
        self._max_tokens, self._end_token, self._limit = max_tokens, end_token, limit
        self._log_probs = log_probs
        self._holes = np.array(tokenizer.vocabulary.holes, np.intp)  # never drawn
        self._decoder, self._stopper = tokenizer.stream_decoder(), StopText(stop)
        self._pieces: list[str] = []

    @property
    def ids(self) -> list[int]:
        """The tokens drawn so far."""
        return self.seen[self._n_prompt :]

    def draw(self, logits: Array) -> tuple[int, str]:
        """The next token and the text that may be shown now; sets finish when it was the last.

        logits [V] of the text so far. Raises ModelError when they are not finite.
        """
        usable = logits[: self._n_vocab]
        if not np.isfinite(usable).all():
            raise ModelError(
                "the model's output is not finite: its training diverged; use an earlier checkpoint"
            )
        if self._holes.size:
            usable = usable.copy()
            usable[self._holes] = -np.inf
        n_drawn = len(self.seen) - self._n_prompt
        token = sample(usable, self.sampling, position=n_drawn, seen=self.seen)
        if token == self._end_token:
            self.finish, piece = "end", ""
        else:
            piece = self._take(token, usable)
        if self.finish is not None:
            piece += self._rest()
        if self._stopper.stopped:
            self.finish = "stop"
        self._pieces.append(piece)
        return token, piece

    def _take(self, token: int, usable: Array) -> str:
        """One more token of the text; what of it may be shown now."""
        self.seen.append(token)
        if self._log_probs is not None:
            self.choices.append(_choice(usable, token, self._log_probs))
        if len(self.seen) - self._n_prompt == self._max_tokens:
            self.finish = "length"
        elif self._limit is not None and len(self.seen) > self._limit:
            self.finish = "context"
        return self._stopper.feed(self._decoder.feed(token))

    def _rest(self) -> str:
        """What was held back, when no stop string can come any more."""
        return self._stopper.feed(self._decoder.flush()) + self._stopper.flush()

    def completion(self) -> Completion:
        """The text that was made, once finish is set."""
        return Completion(
            text="".join(self._pieces),
            finish=self.finish or "length",
            ids=self.ids,
            seed=self.sampling.seed,
            choices=self.choices,
        )


def _choice(logits: Array, token: int, n_alternatives: int) -> TokenChoice:
    p = log_probabilities(logits)
    best = np.argsort(-p, kind="stable")[:n_alternatives]  # of equals, the lower id
    best = best[np.isfinite(p[best])]
    return TokenChoice(token, float(p[token]), [(int(i), float(p[i])) for i in best])
