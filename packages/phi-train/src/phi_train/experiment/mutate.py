"""Ways to change a config that might make it better; each a small function of chance and parent.

Every strategy takes a Parent and a random generator and gives changes over the parent's config,
as an experiment's arm does, or None where it has nothing to offer. Which of them make sense is
for phi-train to say: an impossible config is drawn again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phi_model import ModelConfig
from phi_optim import OPTIMIZERS
from phi_train.config import AVERAGING, TrainConfig, default_learning_rate

__all__ = ["STRATEGIES", "Parent"]

Changes = dict[str, Any]


@dataclass(frozen=True)
class Parent:
    """What is changed; winners: the changes of others that were found better, best first."""

    config: TrainConfig
    winners: Sequence[Mapping[str, Any]] = ()

    @property
    def shape(self) -> ModelConfig:
        """Its model."""
        return self.config.model_config(self.config.vocab_size)


def learning_rate(parent: Parent, rng: random.Random) -> Changes | None:
    """Between a quarter and four times, evenly in its logarithm; the optimiser may be another."""
    now = parent.config.learning_rate or default_learning_rate(
        parent.shape, parent.config.optimizer
    )
    return {"learning_rate": _round(now * 4 ** rng.uniform(-1, 1))}


def scale_up(parent: Parent, rng: random.Random) -> Changes | None:
    """One or two layers more, or heads more of the size they have."""
    return _scaled(parent, rng.choice((1, 2)), rng)


def scale_down(parent: Parent, rng: random.Random) -> Changes | None:
    """A layer or a head less."""
    return _scaled(parent, -1, rng)


def _scaled(parent: Parent, more: int, rng: random.Random) -> Changes | None:
    shape = parent.shape
    if rng.random() < 0.5 and shape.n_layer + more >= 1:
        return {"model.n_layer": shape.n_layer + more}
    heads = shape.n_head + (1 if more > 0 else -1)
    if heads < 1:
        return None
    return {"model.n_head": heads, "model.n_embd": heads * shape.head_size}


def seq_len(parent: Parent, rng: random.Random) -> Changes | None:
    """Twice or half of it, with half or twice the rows: a batch keeps its tokens."""
    length, rows = parent.config.seq_len, parent.config.batch_size
    if rng.random() < 0.5 and length >= 16:
        return {"seq_len": length // 2, "batch_size": rows * 2}
    if rows < 2 or parent.shape.seq_len != length:
        return None
    return {"seq_len": length * 2, "batch_size": rows // 2}


def efficiency(parent: Parent, rng: random.Random) -> Changes | None:
    """The same budget spent otherwise: smaller batches, fewer heads of keys, a thinner MLP."""
    shape, rows = parent.shape, parent.config.batch_size
    choices: list[Changes] = [
        {"model.n_hidden": max(8, round(shape.n_hidden * rng.choice((0.5, 0.75)) / 8) * 8)},
    ]
    if rows > 1:
        choices.append({"batch_size": rows // 2})
    if shape.kind == "gpt" and shape.n_kv_head > 1:
        choices.append({"model.n_kv_head": 1})
    return rng.choice(choices)


def chance(parent: Parent, rng: random.Random) -> Changes | None:
    """One or two settings drawn anew, whatever they were."""
    knobs: dict[str, Sequence[Any]] = {
        "optimizer": sorted(OPTIMIZERS),
        "weight_decay": (0.0, 0.03, 0.1, 0.3),
        "clip": (0.3, 0.5, 2.0, 5.0),
        "warmup_steps": (0, 10, 30, 100),
        "schedule": ("linear", "cosine", "constant"),
        "final_rate": (0.0, 0.1),
        "ema": (0.9, 0.98),
        "batch_size": (2, 4, 8, 16, 32),
        "model.tied_head": (False,),
    }
    if parent.shape.kind == "gpt":
        knobs |= {
            "model.qk_norm": (True,),
            "model.residual_init": ("scaled",),
            "model.rope_base": (100.0, 1000.0),
        }
    names = rng.sample(sorted(knobs), rng.choice((1, 2)))
    return _one_average(parent, {name: rng.choice(knobs[name]) for name in names})


def combine(parent: Parent, rng: random.Random) -> Changes | None:
    """The changes of two that were found better, at once; where both change a thing, the better's.

    These are over the baseline's config, and complete.
    """
    if len(parent.winners) < 2:
        return None
    first, second = sorted(rng.sample(range(len(parent.winners)), 2))
    return _one_average(parent, {**parent.winners[second], **parent.winners[first]})


def _one_average(parent: Parent, changes: Changes) -> Changes:
    """Schedule-free averages by itself, and the settings refuse a second average beside its own."""
    optimizer = changes.get("optimizer", parent.config.optimizer)
    if optimizer == AVERAGING and changes.get("ema", parent.config.ema):
        return changes | {"ema": 0.0}
    return changes


def _round(value: float) -> float:
    return float(f"{value:.2g}")


STRATEGIES: Mapping[str, Callable[[Parent, random.Random], Changes | None]] = {
    "learning-rate": learning_rate,
    "scale-up": scale_up,
    "scale-down": scale_down,
    "seq-len": seq_len,
    "efficiency": efficiency,
    "random": chance,
    "combine": combine,
}
