"""A run on a terminal, live: loss curve, speed, time left, and where the time goes.

The display has a thread of its own, so it starts after the workers are forked, and an update
only leaves its numbers for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from phi_train.plot import curve
from phi_train.rates import Rates, clock

__all__ = ["LiveProgress"]

HEIGHT = 6  # lines of the curve
LABEL = 8  # columns left of it
WIDEST = 100  # columns


class LiveProgress:
    """See phi_train.progress.Progress."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._rates = Rates()
        self._live: Live | None = None

    def say(self, text: str) -> None:
        """One line above the view."""
        self._console.print(text, markup=False)

    def start(self, *, first_step: int, total_steps: int, share: float) -> None:
        """Shows the view."""
        self._rates = Rates(first_step=first_step, total_steps=total_steps, share=share)
        self._live = Live(
            get_renderable=self.view, console=self._console, refresh_per_second=4, transient=True
        )
        self._live.start()

    def step(
        self, step: int, *, loss: float, tokens: int, share: float, parts: Mapping[str, float]
    ) -> None:
        """Leaves the numbers for the next refresh."""
        self._rates.update(step, loss=loss, tokens=tokens, share=share, parts=parts)

    def spent(self, part: str, seconds: float) -> None:
        """Leaves the numbers for the next refresh."""
        self._rates.spend(part, seconds)

    def stop(self) -> None:
        """Takes the view away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def view(self) -> RenderableType:
        """What stands on the terminal now."""
        rates = self._rates
        if not rates.losses:
            return Text("the first step")
        width = min(self._console.width, WIDEST)
        numbers = (
            f"step {rates.of_total}  loss {rates.loss:.3f}  "
            f"{rates.tokens_per_second:,.0f} tokens/s  {clock(rates.seconds_left)} left"
        )
        where = "  ".join(f"{part} {share:.0%}" for part, share in rates.time_shares)
        return Group(
            *self._curve(width),
            Text(numbers, no_wrap=True),
            self._bar(width),
            Text(f"time: {where}", style="dim", no_wrap=True),
        )

    def _bar(self, width: int) -> Text:
        mark = "━" if self._knows_unicode else "="
        done = round(self._rates.share * width)
        return Text(mark * done, style="green").append(mark * (width - done), style="dim")

    @property
    def _knows_unicode(self) -> bool:
        return "utf" in self._console.encoding.lower()

    def _curve(self, width: int) -> list[Text]:
        """The loss so far, its range at the left; nothing where the terminal knows no Braille."""
        if not self._knows_unicode or width < 4 * LABEL:
            return []
        losses = list(self._rates.losses)
        group = max(1, len(losses) // (2 * (width - LABEL)))
        means = [
            sum(losses[i : i + group]) / len(losses[i : i + group])
            for i in range(0, len(losses), group)
        ]
        lines = curve(means, width=width - LABEL, height=HEIGHT)
        labels = [f"{max(means):.3f}", *[""] * (HEIGHT - 2), f"{min(means):.3f}"]
        return [
            Text(f"{label:>{LABEL - 1}} {line}", no_wrap=True)
            for label, line in zip(labels, lines, strict=True)
        ]
