"""Ends a run of phi-train early, everything saved: when it is asked to, or at a step where it is to
be looked at. It takes the place of the run's guard, and asks the guard as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from phi_train.errors import Stopped
from phi_train.guard import Guard
from phi_train.progress import Quiet

__all__ = ["Brake", "Counter", "Reached"]


class Reached(Exception):
    """The run has come to the step where it was to be looked at, and is saved."""


class Counter(Quiet):
    """Knows how many updates are done."""

    step_number = 0

    def start(self, *, first_step: int, total_steps: int, share: float) -> None:  # noqa: ARG002
        """A resumed run begins with more than none."""
        self.step_number = first_step

    def step(
        self,
        step: int,
        *,
        loss: float,  # noqa: ARG002
        tokens: int,  # noqa: ARG002
        share: float,  # noqa: ARG002
        parts: Mapping[str, float],  # noqa: ARG002
    ) -> None:
        """One more is done."""
        self.step_number = step


class Brake(Guard):
    """The loop saves when trouble() finds any, and then calls wait(), which raises."""

    def __init__(
        self, counter: Counter, *, until: int, stop: Callable[[], bool], guard: Guard | None = None
    ) -> None:
        """until: the step to look at; stop: whether to end at once."""
        self._counter, self._until, self._stop, self._guard = counter, until, stop, guard

    def trouble(self) -> str:
        """Why the run ends or waits; empty while it goes on."""
        if self._counter.step_number == self._until:
            return "to be looked at"
        if self._stop():
            return "asked to stop"
        return self._guard.trouble() if self._guard is not None else ""

    def wait(self, *, stopped: Callable[[], bool] = lambda: False) -> None:
        """Raises Reached or Stopped; with trouble of another kind it waits until that is over."""
        if self._counter.step_number == self._until:
            raise Reached
        if self._guard is not None and not self._stop():
            self._guard.wait(stopped=lambda: stopped() or self._stop())
        if self._stop() or stopped():
            raise Stopped
