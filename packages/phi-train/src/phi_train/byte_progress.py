"""How far something that counts bytes has come: a bar on a terminal, a line now and then in a pipe.

with ByteProgress() as progress:
    progress("reading", 3_000_000, 9_000_000)
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

__all__ = ["ByteProgress"]

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_FRAMES = 0.1


class ByteProgress:
    """Called with (phase, bytes done, bytes in all; 0 where that is not known)."""

    def __init__(self, *, terminal: bool | None = None) -> None:
        """terminal: whether to draw a bar; None: when standard output is a terminal."""
        self._terminal = sys.stdout.isatty() if terminal is None else terminal
        self._phase = ""
        self._began = self._shown = time.perf_counter()
        self._first = 0  # bytes that were there when the phase began
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> ByteProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Tells how far `phase` is."""
        now = time.perf_counter()
        if phase != self._phase:
            self._phase, self._began, self._first = phase, now, done
            if self._terminal:
                self._new_bar(phase, total)
        pause = SECONDS_BETWEEN_FRAMES if self._terminal else SECONDS_BETWEEN_LINES
        if now - self._shown < pause and not (self._terminal and done == total):
            return
        self._shown = now
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total or None)
            return
        speed = (done - self._first) / max(1e-9, now - self._began)
        of = f" of {total / 1e6:,.0f}" if total else ""
        print(f"{phase}: {done / 1e6:,.0f}{of} MB, {speed / 1e6:,.1f} MB/s", flush=True)

    def _new_bar(self, phase: str, total: int) -> None:
        from rich.markup import escape  # noqa: PLC0415 (slow to import, for terminals only)
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        if self._bar is not None:
            self._bar.stop()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            transient=True,
        )
        self._task = self._bar.add_task(escape(phase), total=total or None)
        self._bar.start()
