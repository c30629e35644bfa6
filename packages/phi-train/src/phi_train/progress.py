"""What a person sees of a run: a live view on a terminal (phi_train.live), lines in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

from phi_train.rates import Rates, clock

__all__ = ["PlainProgress", "Progress", "Quiet", "progress_for"]

SECONDS_BETWEEN_LINES = 5.0


class Progress(Protocol):
    """What the training loop tells whoever watches."""

    def say(self, text: str) -> None:
        """One line of text."""

    def start(self, *, first_step: int, total_steps: int, share: float) -> None:
        """Training begins after `first_step` updates, a `share` of the budget. total_steps is 0
        where the budget is in seconds.
        """

    def step(
        self, step: int, *, loss: float, tokens: int, share: float, parts: Mapping[str, float]
    ) -> None:
        """`step` updates are done; the last saw `tokens` tokens at `loss` nats a token, and its
        parts took so many seconds.
        """

    def spent(self, part: str, seconds: float) -> None:
        """Time that went into something beside updates."""

    def stop(self) -> None:
        """Training is over, however it ended."""


class Quiet:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def start(self, *, first_step: int, total_steps: int, share: float) -> None:
        """Nothing."""

    def step(
        self, step: int, *, loss: float, tokens: int, share: float, parts: Mapping[str, float]
    ) -> None:
        """Nothing."""

    def spent(self, part: str, seconds: float) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


class PlainProgress:
    """A line now and then, for pipes and logs."""

    def __init__(self) -> None:
        self._rates = Rates()
        self._last_line = 0.0

    def say(self, text: str) -> None:
        """One line on standard output, at once."""
        print(text, flush=True)

    def start(self, *, first_step: int, total_steps: int, share: float) -> None:
        """Starts the clock."""
        self._rates = Rates(first_step=first_step, total_steps=total_steps, share=share)
        self._last_line = time.perf_counter()

    def step(
        self, step: int, *, loss: float, tokens: int, share: float, parts: Mapping[str, float]
    ) -> None:
        """A line when the last one is some seconds old."""
        rates = self._rates
        rates.update(step, loss=loss, tokens=tokens, share=share, parts=parts)
        now = time.perf_counter()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self.say(
                f"step {rates.of_total}  loss {rates.loss:.3f}  "
                f"{rates.tokens_per_second:,.0f} tokens/s  {clock(rates.seconds_left)} left"
            )

    def spent(self, part: str, seconds: float) -> None:
        """Not shown."""

    def stop(self) -> None:
        """Nothing to put away."""


def progress_for(stream: Any = None) -> Progress:
    """The display that suits where the output goes (standard output by default)."""
    target = sys.stdout if stream is None else stream
    if not target.isatty():
        return PlainProgress()
    from phi_train.live import LiveProgress  # noqa: PLC0415 (rich is slow to import)

    return LiveProgress()
