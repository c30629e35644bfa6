"""Where the time of a training step goes, op by op.

>>> from phi_model import ModelConfig, build_model
>>> from phi_train.profile import profile
>>> result = profile(build_model(ModelConfig.preset("gpt-1k")), batch_size=2, seq_len=16, steps=2)
>>> {row.phase for row in result.rows} == {"forward", "backward", "update", "other"}
True
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from phi_model import LanguageModel
from phi_optim import Optimizer, clip_scale, make_optimizer
from phi_train.profile_clock import Clock, OpTime
from phi_train.profile_peak import gemm_peak

__all__ = ["Profile", "ProfileRow", "profile"]

WARM_UP = 3  # steps that are not counted: memory is laid out, caches fill
SECONDS = 1.5  # of steps with the clock and of steps without, when no number is given
MOST_STEPS, FEWEST_STEPS = 200, 4
SMALL = 0.003  # of a step: ops below are summed up as other
PHASES = ("forward", "backward", "update", "other")

Times = dict[tuple[str, str], OpTime]


@dataclass(frozen=True)
class ProfileRow:
    """One op of a step, all layers together."""

    phase: str
    op: str
    calls: float
    seconds: float
    share: float  # of the step
    flops: float  # of matrix products
    peak_share: float | None  # of what the machine could have done; None without products


@dataclass(frozen=True)
class Profile:
    """The mean of the quicker half of the steps. The rows add up to `seconds`."""

    rows: tuple[ProfileRow, ...]  # by phase, the longest first
    seconds: float  # of a step with the clock running
    bare_seconds: float  # of a step without it
    steps: int
    tokens: int  # of a step
    peak: float  # operations a second

    @property
    def flops(self) -> float:
        """Of all products of a step."""
        return sum(row.flops for row in self.rows)


def profile(
    model: LanguageModel,
    *,
    batch_size: int = 4,
    seq_len: int | None = None,
    optimizer: str = "schedule-free",
    steps: int | None = None,
    seed: int = 0,
) -> Profile:
    """Times training steps on random tokens; the model's weights change.

    One worker, one BLAS thread, however many a run would use: the share of each op is what is
    asked for. Raises ConfigError for a batch that does not fit.
    """
    length = model.config.seq_len if seq_len is None else seq_len
    ids = np.random.default_rng(seed).integers(
        model.config.vocab_size, size=(batch_size, length + 1)
    )
    updater = make_optimizer(optimizer, model.parameters)
    clock = Clock(model.parameters, model.gradients)
    step = _Step(model, updater, clock, ids)
    try:
        for _ in range(WARM_UP):
            bare = _timed(step.bare)
        if steps is None:
            steps = max(FEWEST_STEPS, min(MOST_STEPS, int(SECONDS / bare)))
        bare_times, timed = _alternate(step, clock, steps)
    finally:
        model.stop_workers()
    peak = gemm_peak()
    quick = sorted(timed, key=lambda one: one[0])[: max(1, steps // 2)]
    seconds = float(np.mean([one for one, _ in quick]))
    return Profile(
        rows=_rows([times for _, times in quick], seconds, peak),
        seconds=seconds,
        bare_seconds=float(np.mean(sorted(bare_times)[: max(1, steps // 2)])),
        steps=steps,
        tokens=batch_size * length,
        peak=peak,
    )


def _alternate(
    step: _Step, clock: Clock, steps: int
) -> tuple[list[float], list[tuple[float, Times]]]:
    """Seconds of steps without the clock and with it, in turn: both see the same machine."""
    bare, timed = [], []
    for _ in range(steps):
        bare.append(_timed(step.bare))
        with clock.installed():
            clock.take()
            timed.append((_timed(step.under_the_clock), clock.take()))
    return bare, timed


def _timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


class _Step:
    """A training step as a run makes it, with one worker."""

    def __init__(self, model: LanguageModel, optimizer: Optimizer, clock: Clock, ids: Any) -> None:
        self._model, self._optimizer, self._clock = model, optimizer, clock
        self._ids, self._targets = ids[:, :-1], ids[:, 1:]
        self._done = 0
        rows, length = self._ids.shape
        model.start_workers(1, batch_size=rows, seq_len=length, jobs={"update": self._update})

    def bare(self) -> None:
        self._model.loss_and_grad(self._ids, self._targets)
        self._finish()

    def under_the_clock(self) -> None:
        self._model.loss_and_grad(self._ids, self._targets)
        self._clock.op(f"clip and {self._optimizer.name}", self._finish, phase="update")

    def _finish(self) -> None:
        self._done += 1
        scale = clip_scale(self._model.gradient_norm, 1.0)
        self._model.run_job("update", self._done, self._optimizer.learning_rate, scale)

    def _update(self, _member: int, step: float, rate: float, scale: float) -> None:
        self._optimizer.update(
            self._model.gradients, step=int(step), learning_rate=rate, scale=scale
        )


def _rows(steps: list[Times], seconds: float, peak: float) -> tuple[ProfileRow, ...]:
    n = len(steps)
    rows, rest = [], seconds
    for phase, op in dict.fromkeys(key for times in steps for key in times):
        found = [times[phase, op] for times in steps if (phase, op) in times]
        spent = sum(one.seconds for one in found) / n
        flops = sum(one.flops for one in found) / n
        if spent < SMALL * seconds and not flops:
            continue
        rest -= spent
        calls = sum(one.calls for one in found) / n
        reached = flops / spent / peak if flops else None
        rows.append(ProfileRow(phase, op, calls, spent, spent / seconds, flops, reached))
    rows.append(ProfileRow("other", "everything else", 1.0, rest, rest / seconds, 0.0, None))
    return tuple(sorted(rows, key=lambda row: (PHASES.index(row.phase), -row.seconds)))
