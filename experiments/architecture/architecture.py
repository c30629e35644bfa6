"""A trial of an architecture decision: the plain reference GPT with one of its parts replaced.

Beside the settings of phi-train a config may have `choices`, the fields of
phi_model.reference_choices.ReferenceChoices, and `lengths`: tokens of context to measure with,
also beyond the one trained on (a table of learned positions has none there: left out).
Every choice runs the same plain code, so their times compare operations, not tuning.
"""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
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

TIMES = 50
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
    return figures | losses_at(model, data, lengths) | times_of(model, recipe.batch_size)


def times_of(model: ExperimentalGPT, batch_size: int) -> dict[str, float]:
    """Microseconds of one norm and of one MLP sublayer, forward and backward: the least of 50."""
    config = model.config
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch_size, config.seq_len, config.n_embd), dtype=np.float32)
    gradients: dict[str, Any] = {}

    def norm() -> None:
        _, kept = model.norm(x, "final_norm")
        model.norm_backward(x, kept, "final_norm", gradients)

    def mlp() -> None:
        _, kept = model.mlp_sublayer(x, 0)
        model.mlp_sublayer_backward(x, kept, 0, gradients)

    with threadpool_limits(limits=1, user_api="blas"):
        return {
            name: 1e6 * min(timeit.repeat(call, number=1, repeat=TIMES))
            for name, call in (("norm_us", norm), ("mlp_us", mlp))
        }


def losses_at(model: ExperimentalGPT, data: RunData, lengths: list[int]) -> dict[str, float]:
    """Nats a token with windows of each length, the same targets for all."""
    part = replace(data.valid, ids=data.valid.ids[:LONG_TOKENS], source_nats=None)
    with threadpool_limits(limits=1, user_api="blas"):
        return {f"loss_at_{n}": evaluate(Measured(model), part, seq_len=n).loss for n in lengths}
