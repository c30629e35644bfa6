"""From a model's parameters to what makes logits: one text at a time, or many in one pass.

    weights = fold(config, parameters)      once a model: arranged for speed, shared by all below
    step = new_step(weights)                one text
    batch = new_batch(weights, 32)          up to 32 texts at different positions

Knows token ids, not text, and draws nothing.

>>> from phi_model import ModelConfig, build_model
>>> model = build_model(ModelConfig.preset("gpt-1k"))
>>> step = new_step(fold(model.config, model.parameters))
>>> step.prefill([1, 2, 3]).shape, step(4).shape, step.position
((1024,), (1024,), 4)
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

from numpy.typing import NDArray

from phi_infer.batch import Batch
from phi_infer.gpt_step import GPTStep
from phi_infer.gpt_weights import GPTWeights
from phi_infer.rwkv7_step import RWKV7Step
from phi_infer.rwkv7_weights import RWKV7Weights
from phi_model import ModelConfig

__all__ = ["Step", "Weights", "fold", "new_batch", "new_step"]

Array = NDArray[Any]
Weights = GPTWeights | RWKV7Weights


class Step(Protocol):
    """The state of one text: feed it a token, it returns the logits of the next."""

    @property
    def weights(self) -> Weights:
        """Those that the step reads, shared."""

    @property
    def position(self) -> int:
        """Tokens read so far."""

    def __call__(self, token: int) -> Array:
        """Logits [V], float32, after `token`; a new array. A GPT that may not go beyond its
        context (window=0) raises ContextError there.
        """

    def prefill(self, ids: Sequence[int] | Array) -> Array:
        """Reads ids, one or more, by matrix products; the logits [V] after the last."""

    def memory(self) -> list[Array]:
        """What is remembered of the text, beside the position, in arrays that change in place."""

    def copy(self) -> Self:
        """A step that goes on from here by itself; the weights are shared."""

    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Writes what is remembered of the text to a file, whole or not at all."""

    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Goes on from a saved state. Raises CheckpointError or ConfigError."""


def fold(config: ModelConfig, parameters: Mapping[str, Array]) -> Weights:
    """The weights as the steps want them; matrices are copied when they are first used.

    parameters: of phi_model, float32, e.g. views of a mapped file. The embedding is read where
    it lies.
    """
    if config.kind == "rwkv7":
        return RWKV7Weights(config, parameters)
    return GPTWeights(config, parameters)


def new_step(weights: Weights, *, window: int | None = None) -> GPTStep | RWKV7Step:
    """A step at the start of a text.

    window: how many of the last tokens a GPT sees; by default the trained length. 0: the trained
    length, and no further: ContextError. Means nothing to an RWKV-7, whose state sees all.
    """
    if isinstance(weights, RWKV7Weights):
        return RWKV7Step(weights.config, weights)
    return GPTStep(weights.config, weights, window=window)


def new_batch(
    weights: Weights, slots: int, *, window: int | None = None, workers: int = 1
) -> Batch:
    """Room for `slots` texts; see Batch. workers: processes (or threads) that share the slots."""
    return Batch(weights, slots, window=window, workers=workers)
