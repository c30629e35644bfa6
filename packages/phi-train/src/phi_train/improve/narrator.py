"""What a person sees of the work: one line that is renewed on a terminal, lines in a pipe."""

from __future__ import annotations

import sys
import time
from typing import TextIO

__all__ = ["Narrator"]

LIVE, LINES = 0.2, 5.0  # seconds between two looks
BAR = 24  # characters


class Narrator:
    """Called as tell(stage, done, of, note); a stage of one part is a line of its own."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._out = sys.stdout if stream is None else stream
        self._live = self._out.isatty()
        self._between = LIVE if self._live else LINES
        self._began = time.monotonic()
        self._stage, self._last = "", 0.0

    def __call__(self, stage: str, done: int, of: int, note: str) -> None:
        """Shows how far a stage is, now and then."""
        now = time.monotonic()
        clock = f"{now - self._began:6.0f} s"
        if of <= 1:
            self._show(f"{clock}  {stage}", whole=True)
            return
        fresh = stage != self._stage
        if not fresh and done < of and now - self._last < self._between:
            return
        self._stage, self._last = stage, now
        text = f"{stage}  {done:,} of {of:,}" + (f"  loss {note}" if note else "")
        if self._live:
            filled = BAR * done // of
            self._show(f"{clock}  [{'#' * filled}{'.' * (BAR - filled)}] {text}", whole=False)
        else:
            self._show(f"{clock}  {text}", whole=True)

    def _show(self, text: str, *, whole: bool) -> None:
        before = "\r\x1b[2K" if self._live else ""
        print(before + text, end="\n" if whole else "", file=self._out, flush=True)
