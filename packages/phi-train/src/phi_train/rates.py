"""What is known of a run while it goes: smoothed loss, speed, time left, where the time goes."""

from __future__ import annotations

import time
from collections.abc import Mapping

__all__ = ["Rates", "clock"]

SMOOTHING = 0.98  # of the loss that is shown
MOST_POINTS = 512  # of the curve: then every second one is dropped


class Rates:
    """Fed with each update; total_steps is 0 where the budget is in seconds."""

    def __init__(self, *, first_step: int = 0, total_steps: int = 0, share: float = 0.0) -> None:
        self.first_step, self.total_steps = first_step, total_steps
        self.started = time.perf_counter()
        self.loss = float("nan")
        self.losses: list[float] = []  # of every `stride`-th update
        self.stride = 1
        self.tokens = 0
        self.done = first_step
        self.first_share = self.share = share
        self.seconds: dict[str, float] = {}

    def update(
        self, step: int, *, loss: float, tokens: int, share: float, parts: Mapping[str, float]
    ) -> None:
        """`step` updates are done, a `share` of the budget."""
        keep = min(SMOOTHING, 1 - 1 / (step - self.first_step))
        self.loss = loss if step == self.first_step + 1 else keep * self.loss + (1 - keep) * loss
        if (step - self.first_step - 1) % self.stride == 0:
            self.losses.append(loss)
        if len(self.losses) > MOST_POINTS:
            self.losses, self.stride = self.losses[::2], 2 * self.stride
        self.tokens += tokens
        self.done, self.share = step, share
        for part, seconds in parts.items():
            self.spend(part, seconds)

    def spend(self, part: str, seconds: float) -> None:
        """Time went into `part`."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    @property
    def tokens_per_second(self) -> float:
        """Since the start, everything included."""
        return self.tokens / max(1e-9, time.perf_counter() - self.started)

    @property
    def seconds_left(self) -> float:
        """At the speed so far."""
        elapsed = time.perf_counter() - self.started
        return elapsed / max(1e-9, self.share - self.first_share) * (1 - self.share)

    @property
    def of_total(self) -> str:
        """The step, and of how many, if that is known."""
        return f"{self.done}/{self.total_steps}" if self.total_steps else f"{self.done}"

    @property
    def time_shares(self) -> list[tuple[str, float]]:
        """(part, share of the time that is accounted for), the largest first."""
        total = sum(self.seconds.values()) or 1.0
        shares = ((part, seconds / total) for part, seconds in self.seconds.items())
        return sorted(shares, key=lambda pair: -pair[1])


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any.

    >>> clock(61), clock(3600)
    ('1:01', '1:00:00')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
