"""Places where the work may stop or wait: between two steps, between two batches of samples."""

from __future__ import annotations

from collections.abc import Callable

from phi_train.errors import Stopped
from phi_train.guard import Guard

__all__ = ["Pause"]


class Pause:
    """stopped: whether a stop was asked for. guard: keeps waiting while the machine suffers."""

    def __init__(
        self, stopped: Callable[[], bool] = lambda: False, guard: Guard | None = None
    ) -> None:
        self._stopped, self._guard = stopped, guard

    def point(self) -> None:
        """Returns when the work may go on; raises Stopped when it must not."""
        if self._guard is not None and self._guard.trouble():
            self._guard.wait(stopped=self._stopped)
        if self._stopped():
            raise Stopped("stopped; everything so far is saved, the same command goes on")
