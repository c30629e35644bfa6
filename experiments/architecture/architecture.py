"""A trial of an architecture decision: the plain reference GPT with one of its parts replaced.

Beside the settings of phi-train a config may have `choices`, the fields of
phi_model.reference_choices.ReferenceChoices, and `lengths`: tokens of context to measure with,
also beyond the one trained on (a table of learned positions has none there: left out).
Every choice runs the same plain code, so their times compare operations, not tuning.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from phi_model.reference_choices import ExperimentalGPT, ReferenceChoices, new_parameters
from phi_train import evaluate
from phi_train.run_data import RunData

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from plain_training import (  # noqa: E402 (found by the line above)
    Measured,
    data_of,
    recipe_of,
    train_plain,
)

__all__ = ["train"]

LONG_TOKENS = 65_536  # of the held-out stream, for each length: the same targets


def train(
    config: Mapping[str, Any], seed: int, folder: Path, stop: Callable[[], bool]
) -> dict[str, Any]:
    """The figures of one trial; `loss_at_N` with N tokens of context."""
    recipe = recipe_of(config, seed)
    data = data_of(recipe)
    choices = ReferenceChoices(**config.get("choices", {}))
    shape = recipe.model_config(data.tokenizer.n_vocab)
    model = ExperimentalGPT(shape, new_parameters(shape, choices, seed=seed), choices)
    figures = train_plain(model, recipe, data, folder, stop)
    lengths = [n for n in config["lengths"] if choices.positions != "learned" or n <= shape.seq_len]
    return figures | losses_at(model, data, lengths)


def losses_at(model: ExperimentalGPT, data: RunData, lengths: list[int]) -> dict[str, float]:
    """Nats a token with windows of each length, the same targets for all."""
    part = replace(data.valid, ids=data.valid.ids[:LONG_TOKENS], source_nats=None)
    with threadpool_limits(limits=1, user_api="blas"):
        return {f"loss_at_{n}": evaluate(Measured(model), part, seq_len=n).loss for n in lengths}
