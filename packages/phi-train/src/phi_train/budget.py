"""How long a run lasts, and the learning rate that follows from it.

Updates are counted where the budget is steps, tokens or operations; with a budget in seconds the
schedule follows the share of the time that is used up.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from phi_optim import schedules
from phi_train.config import TrainConfig

__all__ = ["Budget", "Stopwatch", "rate_factor"]

FINE = 1_000_000  # pseudo-steps of a budget in seconds, for schedules that count steps


@dataclass(frozen=True)
class Budget:
    """A number of updates; or, where seconds is above 0, that much training time."""

    steps: int
    seconds: float = 0.0

    def share(self, step: int, elapsed: float) -> float:
        """How much is used up after `step` updates in `elapsed` seconds, from 0 to 1."""
        used = elapsed / self.seconds if self.seconds else step / self.steps
        return min(1.0, used)

    def is_used_up(self, step: int, elapsed: float) -> bool:
        """Whether no update is left to make."""
        return elapsed >= self.seconds if self.seconds else step >= self.steps


def rate_factor(
    config: TrainConfig, schedule: str, budget: Budget, step: int, elapsed: float
) -> float:
    """What the peak learning rate is multiplied by for the update after `step` others.

    The warm-up is a number of updates, and at most half of the budget.
    """
    final = config.final_rate
    if budget.seconds:
        share = budget.share(step, elapsed)
        rising = max(schedules.warmup(step, config.warmup_steps), min(1.0, 2 * share))
        return rising * _curve(schedule, round(FINE * share), FINE, 0, final)
    warmup = min(config.warmup_steps, budget.steps // 2)
    return _curve(schedule, step, budget.steps, warmup, final)


def _curve(schedule: str, step: int, total: int, warmup: int, final: float) -> float:
    if schedule == "constant":
        return schedules.constant(step, total, warmup_steps=warmup)
    curve = {
        "warmup-stable-decay": schedules.warmup_stable_decay,
        "linear": schedules.linear,
        "cosine": schedules.cosine,
    }[schedule]
    return curve(step, total, warmup_steps=warmup, final=final)


class Stopwatch:
    """Seconds of training: those of earlier sessions and of this one, pauses left out."""

    def __init__(self, before: float = 0.0) -> None:
        self._before = before
        self._started: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds so far."""
        running = 0.0 if self._started is None else time.monotonic() - self._started
        return self._before + running

    def start(self) -> None:
        """Goes on counting."""
        self._before, self._started = self.elapsed, time.monotonic()

    def pause(self) -> None:
        """Stops counting until start()."""
        self._before, self._started = self.elapsed, None
