"""A model and what changes it: gradients of a batch, one update, and what a resume needs of both.

Knows no files, no data and no schedule.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_model import LanguageModel, NotFiniteError, shared_zeros
from phi_optim import Ema, clip_scale, grad_norm, make_optimizer
from phi_train.carried import CarriedState
from phi_train.config import AVERAGING, TrainConfig, default_learning_rate
from phi_train.evaluate import TOKENS_AT_ONCE
from phi_train.groups import GroupWatch

__all__ = ["Learner"]

Array = NDArray[Any]

OPTIMIZER, AVERAGE = "optimizer/", "ema/"  # prefixes of tensors in a checkpoint
STREAM = "stream/"
TRAINING = "training/flat"  # weights to train on, where those to evaluate are others


class Learner:
    """One update at a time; workers share each of them after start_workers().

    seconds: how long the parts of the last update took, "model" (forward and backward) and
    "optimizer"; forward_seconds: forward alone, as measured once by time_forward().
    """

    def __init__(self, model: LanguageModel, config: TrainConfig) -> None:
        self.model, self._config = model, config
        self.optimizer = make_optimizer(
            config.optimizer,
            model.parameters,
            weight_decay=None if config.weight_decay < 0 else config.weight_decay,
            betas=None if config.beta1 < 0 else (config.beta1, config.beta2),
            decay=lambda name, _: model.decays(name),
            allocate=shared_zeros,
        )
        self.learning_rate = config.learning_rate or default_learning_rate(
            model.config, config.optimizer
        )
        self.schedule = config.schedule or self.optimizer.schedule
        self.ema = None
        if config.ema:
            self.ema = Ema(model.parameters, decay=config.ema, allocate=shared_zeros)
        self.carried = None
        if CarriedState.wanted(model, config):
            self.carried = CarriedState(model, config)
        self.seconds = {"model": 0.0, "optimizer": 0.0}
        self.forward_seconds = 0.0

    def start_workers(self, wanted: int | str) -> tuple[int, str]:
        """Their number and kind. Last of all: they see what is there when they start."""
        return self.model.start_workers(
            wanted,
            batch_size=self._config.batch_size,
            seq_len=self._config.seq_len,
            max_tokens=TOKENS_AT_ONCE,
            jobs={"update": self._update_share, "average": self._average_share},
        )

    # one update

    def loss_and_grad(
        self, ids: Array, targets: Array, resets: Array | None = None
    ) -> tuple[float, float]:
        """The mean loss of a step's batches, its gradient in model.gradients; its norm.

        resets [B, T]: where a carried state forgets; used only by a model that carries one.
        """
        started = time.perf_counter()
        try:
            result = self._accumulate(ids, targets, resets)
        except NotFiniteError:  # the caller knows more of the run, and says so
            result = math.nan, math.nan
        self.seconds["model"] = time.perf_counter() - started
        return result

    def _accumulate(self, ids: Array, targets: Array, resets: Array | None) -> tuple[float, float]:
        parts = self._config.grad_accum
        if parts == 1:
            loss = self.model.loss_and_grad(ids, targets, **self._memory(0, resets))
            return loss, self.model.gradient_norm
        losses = []
        total = np.zeros(self.model.gradients.flat.size, self.model.dtype)
        for part in range(parts):
            rows = slice(part * self._config.batch_size, (part + 1) * self._config.batch_size)
            forget = None if resets is None else resets[rows]
            memory = self._memory(part, forget)
            losses.append(self.model.loss_and_grad(ids[rows], targets[rows], **memory))
            total += self.model.gradients.flat
        np.divide(total, parts, out=self.model.gradients.flat)
        return sum(losses) / parts, grad_norm(self.model.gradients)

    def _memory(self, part: int, resets: Array | None) -> dict[str, Any]:
        """What a model that carries a state takes beside a batch."""
        if self.carried is None:
            return {}
        return {"state": self.carried.part(part), "reset": resets}

    def time_forward(self, ids: Array, targets: Array) -> None:
        """Measures how much of "model" is forward, on one step's batches; changes nothing."""
        rows = slice(0, self._config.batch_size)
        times = []
        for _ in range(3):  # the first one makes room
            started = time.perf_counter()
            self.model.loss(ids[rows], targets[rows])
            times.append(time.perf_counter() - started)
        self.forward_seconds = min(times) * self._config.grad_accum

    @property
    def parts(self) -> dict[str, float]:
        """Seconds of the last update's forward and backward pass and of the optimiser."""
        model, optimizer = self.seconds["model"], self.seconds["optimizer"]
        forward = min(self.forward_seconds, model)
        return {"forward": forward, "backward": model - forward, "optimizer": optimizer}

    def update(self, step: int, *, rate: float, norm: float) -> None:
        """Update number `step` with the gradients at hand, whose norm is `norm`."""
        started = time.perf_counter()
        self.optimizer.steps = step
        self.model.run_job("update", step, rate, clip_scale(norm, self._config.clip))
        if self.ema is not None:
            self.ema.steps = step
            self.model.run_job("average", step)  # a job of its own: the shares may be others
        self.seconds["optimizer"] = time.perf_counter() - started

    def _update_share(self, member: int, step: float, rate: float, scale: float) -> None:
        self.optimizer.update(
            self.model.gradients,
            step=int(step),
            learning_rate=rate,
            scale=scale,
            share=member,
            shares=self.model.workers,
        )

    def _average_share(self, member: int, step: float) -> None:
        if self.ema is not None:
            self.ema.update(step=int(step), share=member, shares=self.model.workers)

    def watch(self) -> GroupWatch:
        """To be made between loss_and_grad() and update()."""
        return GroupWatch(self.model.parameters, self.model.gradients)

    # what goes wrong

    def can_go_on(self, ids: Array, targets: Array) -> bool:
        """Whether weights and the loss of this batch are finite: the last update may be the one
        that broke the weights.
        """
        rows = slice(0, self._config.batch_size)
        loss = self.model.loss(ids[rows], targets[rows])
        return math.isfinite(loss) and bool(np.isfinite(self.model.parameters.flat).all())

    # what is evaluated and saved

    @contextmanager
    def evaluation_view(self) -> Iterator[dict[str, Array]]:
        """Inside, model.parameters hold the weights to evaluate and to save: the average, where
        there is one. Afterwards they are, to the last bit, those to train on.

        Gives the tensors that a bit-exact resume needs beside those weights.
        """
        tensors = {OPTIMIZER + name: value for name, value in self.optimizer.state().items()}
        if self.carried is not None:
            tensors |= {STREAM + name: value for name, value in self.carried.tensors().items()}
        if self.ema is None and self.optimizer.name != AVERAGING:
            yield tensors
            return
        if self.ema is not None:
            tensors |= {AVERAGE + name: value for name, value in self.ema.state().items()}
        flat = self.model.parameters.flat
        training = flat.copy()
        tensors = {name: value.copy() for name, value in tensors.items()}
        view = self._optimizer_view() if self.ema is None else self.ema.swapped()
        try:
            with view:
                yield tensors | {TRAINING: training}
        finally:
            flat[...] = training

    @contextmanager
    def _optimizer_view(self) -> Iterator[None]:
        self.optimizer.eval()
        try:
            yield
        finally:
            self.optimizer.train()

    def restore(self, tensors: Mapping[str, Array], *, step: int) -> None:
        """Goes on from what evaluation_view() gave; model.parameters are restored already.

        Raises phi_optim.StateError when the tensors are another optimiser's, or an average is
        asked for that was not kept so far.
        """
        if TRAINING in tensors:
            self.model.parameters.flat[...] = tensors[TRAINING]
        self.optimizer.load_state(_named(OPTIMIZER, tensors))
        self.optimizer.steps = step
        if self.carried is not None:
            self.carried.restore(_named(STREAM, tensors))
        if self.ema is not None:
            self.ema.load_state(_named(AVERAGE, tensors))


def _named(prefix: str, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Those whose names begin with `prefix`, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
