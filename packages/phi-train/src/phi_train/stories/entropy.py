"""The entropy of a source whose stories know their own probability: a sample mean, no model.

-log_prob of a story drawn from the grammar is an unbiased estimate of its entropy, because the
log-probability is exact: the error is that of sampling alone, and it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from math import log, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from phi_train.stories.grammar import Story, StoryGrammar

__all__ = ["Entropy", "Estimate", "entropy", "entropy_of", "ratio"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its standard error: `0.512 +- 0.003`."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.4f} +- {self.error:.4f}"


@dataclass(frozen=True, slots=True)
class Entropy:
    """What `n_stories` stories say about the source.

    Attributes:
        nats_per_story: mean of -log_prob, the end of the story included.
        bits_per_byte: all bits over all UTF-8 bytes of text (the end costs bits but no bytes).
        bytes_per_story: mean length.
        nats_per_token: all nats over all tokens, when a tokenizer was given; its count should
            include the end token.
    """

    n_stories: int
    nats_per_story: Estimate
    bits_per_byte: Estimate
    bytes_per_story: Estimate
    nats_per_token: Estimate | None = None


def ratio(tops: Sequence[float], bottoms: Sequence[float]) -> Estimate:
    """sum(tops) / sum(bottoms) of paired values, with the standard error of a ratio estimator.

    The error is that of the residuals top - ratio * bottom, so it knows that long stories carry
    more bits. With `bottoms` all 1 it is the mean and its usual standard error.
    """
    n = len(tops)
    value = sum(tops) / sum(bottoms)
    residual = sum((t - value * b) ** 2 for t, b in zip(tops, bottoms, strict=True))
    error = sqrt(residual / max(n - 1, 1) / n) / (sum(bottoms) / n)
    return Estimate(value, error)


def entropy_of(
    stories: Iterable[Story], *, count_tokens: Callable[[str], int] | None = None
) -> Entropy:
    """The same figures of given stories: of a validation set, say, to pair a model with."""
    nats: list[float] = []
    sizes: list[float] = []
    tokens: list[float] = []
    for story in stories:
        nats.append(-story.log_prob)
        sizes.append(len(story.text.encode()))
        if count_tokens:
            tokens.append(count_tokens(story.text))
    ones = [1.0] * len(nats)
    return Entropy(
        n_stories=len(nats),
        nats_per_story=ratio(nats, ones),
        bits_per_byte=ratio([x / log(2) for x in nats], sizes),
        bytes_per_story=ratio(sizes, ones),
        nats_per_token=ratio(nats, tokens) if tokens else None,
    )


def entropy(
    grammar: StoryGrammar,
    *,
    n_stories: int = 10_000,
    seed: int = 0,
    count_tokens: Callable[[str], int] | None = None,
) -> Entropy:
    """Estimate the entropy of a grammar from `n_stories` stories of one seed.

    Args:
        grammar: the source.
        n_stories: how many stories; the standard errors fall as its square root.
        seed: of the stream `grammar.stories(seed)`.
        count_tokens: text -> number of tokens (with the end token), for nats a token.
    """
    stories = islice(grammar.stories(seed), n_stories)
    return entropy_of(stories, count_tokens=count_tokens)
