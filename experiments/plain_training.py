"""Training of models that phi-train does not know: subclasses of the plain reference GPT.

The optimisers, batches, clipping, schedules and the measure of loss are those of phi-train; so
with the clean reference the loss curve is that of phi_model.GPT, to rounding
(experiments/tests). float32, one process, one BLAS thread: two trials at once fill two cores.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from phi_model import ModelConfig
from phi_model.files import atomic_write
from phi_model.parameters import FlatTable
from phi_optim import clip_scale, grad_norm, make_optimizer
from phi_train import Diverged, TrainConfig, evaluate
from phi_train.batches import make_batches
from phi_train.budget import Budget, rate_factor
from phi_train.run_data import RunData, open_run_data
from phi_train.tokens import TokenStream

__all__ = ["Measured", "Reference", "data_of", "recipe_of", "train_plain"]

Array = NDArray[Any]

POINTS = 100  # of a curve
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
EARLY_TOKENS = 16_384  # of the held-out stream, for looks on the way


class Reference(Protocol):
    """What is trained: ReferenceGPT and its subclasses."""

    config: ModelConfig
    parameters: FlatTable

    def loss_and_grad(self, ids: Array, targets: Array) -> tuple[float, dict[str, Array]]: ...

    def forward(self, ids: Array) -> tuple[Array, Any]: ...

    def losses(self, logits: Array, targets: Array) -> tuple[Array, Any]: ...


@dataclass
class Measured:
    """A reference model as phi_train.evaluate asks for it."""

    model: Reference

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    def token_log_probs(self, ids: Array, targets: Array) -> Array:
        """log p(target) [B, T]."""
        logits, _ = self.model.forward(np.asarray(ids, np.intp))
        return -self.model.losses(logits, np.asarray(targets, np.intp))[0]


def recipe_of(config: Mapping[str, Any], seed: int) -> TrainConfig:
    """The settings that phi-train knows; a trial's own keys are left to the trial."""
    known = {field.name for field in fields(TrainConfig)}
    return TrainConfig.from_dict({k: v for k, v in config.items() if k in known} | {"seed": seed})


def data_of(recipe: TrainConfig) -> RunData:
    """Tokens as a run of phi-train with these settings reads them."""
    return open_run_data(recipe, None, lambda _: None)


def train_plain(
    model: Reference,
    recipe: TrainConfig,
    data: RunData,
    folder: Path,
    stop: Callable[[], bool],
    *,
    carried: Callable[[], Mapping[str, Array]] = dict,
    restore: Callable[[Mapping[str, Array]], None] = lambda _: None,
) -> dict[str, Any]:
    """Trains for recipe.steps; the figures of a trial, with curves.

    carried and restore: what the model keeps from step to step, for a run that is gone on with.
    Raises Diverged; Stopped when stop() asks for it, after saving to `folder`.
    """
    keep_memory()
    with threadpool_limits(limits=1, user_api="blas"), np.errstate(all="ignore"):
        return _Run(model, recipe, data, folder, carried, restore).go(stop)


def keep_memory() -> None:
    """Tells glibc to keep what is freed for the next array, where there is a glibc.

    The plain code makes its arrays anew in each step; given back and asked for again, their
    pages took over a quarter of its time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, 1 << 25)
    mallopt(M_TRIM_THRESHOLD, 1 << 30)


class _Run:
    def __init__(
        self,
        model: Reference,
        recipe: TrainConfig,
        data: RunData,
        folder: Path,
        carried: Callable[[], Mapping[str, Array]],
        restore: Callable[[Mapping[str, Array]], None],
    ) -> None:
        self.model, self.recipe, self.data, self.carried = model, recipe, data, carried
        self.saved = folder / "stopped.npz"
        self.gradients = model.parameters.like()
        self.optimizer = make_optimizer(
            recipe.optimizer,
            model.parameters,
            learning_rate=recipe.learning_rate,
            weight_decay=None if recipe.weight_decay < 0 else recipe.weight_decay,
            betas=None if recipe.beta1 < 0 else (recipe.beta1, recipe.beta2),
        )
        self.batches = make_batches(
            recipe.batches,
            data.train,
            batch_size=recipe.batch_size,
            seq_len=recipe.seq_len,
            seed=recipe.seed,
        )
        self.budget = Budget(recipe.steps)
        self.step, self.seconds = 0, 0.0
        self.losses: list[float] = []
        self.looks: list[list[float]] = []
        if self.saved.exists():
            self._load(restore)

    def go(self, stop: Callable[[], bool]) -> dict[str, Any]:
        while self.step < self.recipe.steps:
            if stop():
                self._save()
                from phi_train.experiment import Stopped  # noqa: PLC0415 (the runner's)

                raise Stopped
            started = time.perf_counter()
            self._update()
            self.seconds += time.perf_counter() - started
            if self.step % self.recipe.eval_every == 0:
                self.looks.append([self.step, self._loss_of(_start(self.data.valid))])
            every = self.recipe.checkpoint_every
            if every and self.step % every == 0:  # a process may be killed, not asked
                self._save()
        return self._figures()

    def _update(self) -> None:
        recipe = self.recipe
        loss, gradients = self.model.loss_and_grad(*self.batches(self.step))
        self.gradients.assign(gradients)
        norm = grad_norm(self.gradients)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(f"loss {loss}, gradient norm {norm} at step {self.step + 1}")
        schedule = recipe.schedule or self.optimizer.schedule
        factor = rate_factor(recipe, schedule, self.budget, self.step, 0.0)
        self.step += 1
        self.optimizer.steps = self.step
        self.optimizer.update(
            self.gradients,
            step=self.step,
            learning_rate=recipe.learning_rate * factor,
            scale=clip_scale(norm, recipe.clip),
        )
        self.losses.append(loss)

    def _loss_of(self, stream: TokenStream) -> float:
        return evaluate(Measured(self.model), stream).loss  # type: ignore[arg-type]

    def _figures(self) -> dict[str, Any]:
        result = evaluate(Measured(self.model), self.data.valid)  # type: ignore[arg-type]
        if not math.isfinite(result.loss):
            raise Diverged(f"the held-out loss is {result.loss}")
        config, tokens = self.model.config, self.recipe.steps * self.recipe.tokens_per_step
        size = sum(value.size for value in self.model.parameters.values())
        outside = ("embedding", "head", "positions")
        return {
            "loss": result.loss,
            "bits_per_byte": result.bits_per_byte,
            "steps": self.recipe.steps,
            "tokens": tokens,
            "seconds": self.seconds,
            "step_ms": 1e3 * self.seconds / self.recipe.steps,
            "flops": float(config.flops_per_token(self.recipe.seq_len) * tokens),
            "parameters": size,
            "non_embedding": size
            - sum(v.size for n, v in self.model.parameters.items() if n in outside),
            "curves": {"valid_loss": self.looks, "loss": _stretches(self.losses)},
        }

    def _save(self) -> None:
        tensors = {f"optimizer/{name}": value for name, value in self.optimizer.state().items()}
        tensors |= {f"carried/{name}": value for name, value in self.carried().items()}
        tensors |= {f"model/{name}": value for name, value in self.model.parameters.items()}
        tensors |= {
            "losses": np.array(self.losses),
            "looks": np.array(self.looks).reshape(-1, 2),
            "seconds": np.array([self.seconds]),
        }
        with atomic_write(self.saved) as file:
            np.savez(file, **tensors)  # type: ignore[arg-type]

    def _load(self, restore: Callable[[Mapping[str, Array]], None]) -> None:
        with np.load(self.saved, allow_pickle=False) as file:
            tensors = dict(file)
        self.model.parameters.assign(_named("model/", tensors))
        self.optimizer.load_state(_named("optimizer/", tensors))
        restore(_named("carried/", tensors))
        self.losses, self.looks = tensors["losses"].tolist(), tensors["looks"].tolist()
        self.step, self.seconds = len(self.losses), float(tensors["seconds"][0])


def _named(prefix: str, tensors: Mapping[str, Array]) -> dict[str, Array]:
    chosen = (name for name in tensors if name.startswith(prefix))
    return {name.removeprefix(prefix): tensors[name] for name in chosen}


def _start(stream: TokenStream) -> TokenStream:
    return replace(stream, ids=stream.ids[:EARLY_TOKENS], source_nats=None)


def _stretches(losses: list[float]) -> list[list[float]]:
    """[step, mean of the steps since the point before]."""
    ends = np.unique(np.linspace(0, len(losses), POINTS + 1).round().astype(int))
    means = np.add.reduceat(losses, ends[:-1]) / np.diff(ends)
    return [[int(end), float(mean)] for end, mean in zip(ends[1:], means, strict=True)]
