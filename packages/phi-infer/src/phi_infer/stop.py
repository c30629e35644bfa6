"""Stop strings in a stream: found also where they cross the borders of pieces."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StopText"]


class StopText:
    """Passes text on, but holds back an end that may be the start of a stop string.

    >>> stopper = StopText(["END"])
    >>> stopper.feed("the E"), stopper.feed("ND of it"), stopper.stopped
    ('the ', '', True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = list(stops)
        self._held = ""
        self.stopped = False

    def feed(self, piece: str) -> str:
        """The text that may be shown now."""
        if self.stopped:
            return ""
        text = self._held + piece
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((self._overlap(text, stop) for stop in self._stops), default=0)
        shown = text[: len(text) - keep]
        self._held = text[len(shown) :]
        return shown

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """How many of the last characters of `text` are the first ones of `stop`."""
        at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
        while at >= 0 and not stop.startswith(text[at:]):
            at = text.find(stop[0], at + 1)
        return len(text) - at if at >= 0 else 0

    def flush(self) -> str:
        """What was held back, when the text ends."""
        held, self._held = self._held, ""
        return held
