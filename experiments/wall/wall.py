"""A trial of the wall: the reference GPT with defects put back, or the fast path, trained alike.

Beside the settings of phi-train a config has

    model_kind   "reference" (with `defects`), or "fast": phi_model.GPT, for the comparison
    defects      a list of defects.DEFECTS
    start        "normal": N(0, 0.02) for every matrix, as GPT-2's, in place of the inherited
                 start, which its log does not tell; or "ours": phi_model's
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from phi_model import GPT, ModelConfig
from phi_model.parameters import FlatTable
from phi_train import ConfigError

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from defects import DefectiveGPT  # noqa: E402 (found by the line above)
from plain_training import (  # noqa: E402
    data_of,
    recipe_of,
    train_plain,
)

__all__ = ["FastGPT", "model_of", "train"]

NORMAL_STD = 0.02


class FastGPT(DefectiveGPT):
    """Losses and gradients of phi_model.GPT, behind the reference's interface."""

    def __init__(self, gpt: GPT) -> None:
        super().__init__(gpt.config, gpt.parameters)
        self.gpt = gpt

    def loss_and_grad(self, ids: Any, targets: Any, weights: Any = None) -> tuple[float, dict]:
        return self.gpt.loss_and_grad(ids, targets, weights), dict(self.gpt.gradients)


def train(
    config: Mapping[str, Any], seed: int, folder: Path, stop: Callable[[], bool]
) -> dict[str, Any]:
    """The figures of one trial; see docs/experiments.md."""
    recipe = recipe_of(config, seed)
    data = data_of(recipe)
    model = model_of(config, recipe.model_config(data.tokenizer.n_vocab), seed)

    def restore(arrays: Mapping[str, Any]) -> None:
        model.left_over = arrays.get("left_over")

    def carried() -> dict[str, Any]:
        return {} if model.left_over is None else {"left_over": model.left_over}

    return train_plain(model, recipe, data, folder, stop, carried=carried, restore=restore)


def model_of(config: Mapping[str, Any], shape: ModelConfig, seed: int) -> DefectiveGPT:
    """The model that a config asks for, at its start."""
    gpt = GPT(shape, seed=seed)
    if config["start"] == "normal":
        start_normal(gpt.parameters, seed)
    elif config["start"] != "ours":
        raise ConfigError(f"start is {config['start']!r}; it may be normal or ours")
    if config["model_kind"] == "fast":
        return FastGPT(gpt)
    if config["model_kind"] != "reference":
        raise ConfigError(f"model_kind is {config['model_kind']!r}; it may be reference or fast")
    return DefectiveGPT(shape, gpt.parameters, defects=config["defects"])


def start_normal(parameters: FlatTable, seed: int) -> None:
    """N(0, 0.02) for every matrix; gains stay 1."""
    rng = np.random.default_rng(seed)
    for value in parameters.values():
        if value.ndim == 2:
            value[...] = NORMAL_STD * rng.standard_normal(value.shape, dtype=np.float32)
