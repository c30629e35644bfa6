"""What a person sees of a run: a live line on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol

__all__ = ["PlainProgress", "Progress", "Quiet", "TerminalProgress", "progress_for"]

SECONDS_BETWEEN_LINES = 5.0
SMOOTHING = 0.98  # of the loss that is shown


class Progress(Protocol):
    """What the training loop tells whoever watches."""

    def say(self, text: str) -> None:
        """One line of text."""

    def start(self, *, first_step: int, total_steps: int) -> None:
        """Training begins after `first_step` updates."""

    def step(self, step: int, *, loss: float, tokens: int) -> None:
        """`step` updates are done; the last saw `tokens` tokens at `loss` nats a token."""

    def stop(self) -> None:
        """Training is over, however it ended."""


class Quiet:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def start(self, *, first_step: int, total_steps: int) -> None:
        """Nothing."""

    def step(self, step: int, *, loss: float, tokens: int) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


class _Rates:
    """A smoothed loss, tokens a second and the time left, from the calls to `update`."""

    def __init__(self, first_step: int, total_steps: int) -> None:
        self.first_step, self.total_steps = first_step, total_steps
        self.started = time.perf_counter()
        self.loss = float("nan")
        self.tokens = 0
        self.done = first_step

    def update(self, step: int, loss: float, tokens: int) -> None:
        keep = min(SMOOTHING, 1 - 1 / (step - self.first_step))
        self.loss = loss if step == self.first_step + 1 else keep * self.loss + (1 - keep) * loss
        self.tokens += tokens
        self.done = step

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / max(1e-9, time.perf_counter() - self.started)

    @property
    def seconds_left(self) -> float:
        elapsed = time.perf_counter() - self.started
        return elapsed / max(1, self.done - self.first_step) * (self.total_steps - self.done)


class PlainProgress:
    """A line now and then, for pipes and logs."""

    def __init__(self) -> None:
        self._rates = _Rates(0, 0)
        self._last_line = 0.0

    def say(self, text: str) -> None:
        """One line on standard output, at once."""
        print(text, flush=True)

    def start(self, *, first_step: int, total_steps: int) -> None:
        """Starts the clock."""
        self._rates = _Rates(first_step, total_steps)
        self._last_line = time.perf_counter()

    def step(self, step: int, *, loss: float, tokens: int) -> None:
        """A line when the last one is some seconds old."""
        self._rates.update(step, loss, tokens)
        now = time.perf_counter()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            rates = self._rates
            self.say(
                f"step {step}/{rates.total_steps}  loss {rates.loss:.3f}  "
                f"{rates.tokens_per_second:,.0f} tokens/s  {_clock(rates.seconds_left)} left"
            )

    def stop(self) -> None:
        """Nothing to put away."""


class TerminalProgress:
    """A live bar with loss, tokens a second and the time left."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 (slow to import, for terminals only)

        self._console = Console(highlight=False)
        self._bar: Any = None
        self._task: Any = None
        self._rates = _Rates(0, 0)

    def say(self, text: str) -> None:
        """One line above the bar."""
        self._console.print(text, markup=False)

    def start(self, *, first_step: int, total_steps: int) -> None:
        """Shows the bar."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

        self._rates = _Rates(first_step, total_steps)
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            refresh_per_second=5,
            transient=True,
        )
        self._task = self._bar.add_task("", total=total_steps, completed=first_step)
        self._bar.start()

    def step(self, step: int, *, loss: float, tokens: int) -> None:
        """Moves the bar."""
        self._rates.update(step, loss, tokens)
        text = (
            f"loss {self._rates.loss:.3f}  {self._rates.tokens_per_second:,.0f} tokens/s  "
            f"{_clock(self._rates.seconds_left)} left"
        )
        self._bar.update(self._task, completed=step, description=text)

    def stop(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def progress_for(stream: Any = None) -> Progress:
    """The display that suits where the output goes (standard output by default)."""
    target = sys.stdout if stream is None else stream
    return TerminalProgress() if target.isatty() else PlainProgress()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
