"""Two pictures of a ledger as inline SVG: loss against cost with error bars, and effects ranked.

They are drawn like phi_train.report's charts, with its scales and its style sheet.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from phi_train.experiment.ledger import Row
from phi_train.report.scale import Scale, number
from phi_train.report.text import escape, tag

__all__ = ["COSTS", "CSS", "draw_effects", "draw_frontier", "frontier_rows"]

HEIGHT, ROW = 300, 26  # pixels
COLOUR = {"baseline": 7, "promote": 2, "keep": 6, "inconclusive": 0, "discard": 1}
CSS = """
.bar { stroke: var(--own); stroke-width: 1.6; }
.step { stroke: var(--own); stroke-width: 1.6; stroke-dasharray: 2 4; }
.zero { stroke: var(--soft); stroke-width: 1; }
.effects { padding: 12px 22px 30px 8px; }
.badge.promote, .badge.keep { color: var(--good); }
.badge.crashed, .badge.killed { color: var(--bad); }
"""


@dataclass(frozen=True)
class Cost:
    """What may be had for less."""

    name: str
    title: str
    unit: str
    measure: Callable[[Row], float]

    def of(self, row: Row) -> float:
        """To two digits: what differs by less costs the same."""
        return float(f"{self.measure(row):.2g}")


COSTS = (
    Cost("parameters", "Loss against parameters", "parameters in all", lambda r: r.parameters),
    Cost("flops", "Loss against operations", "FLOPs of one run", lambda r: r.flops_a_run),
    Cost("seconds", "Loss against time", "seconds of one run", lambda r: r.seconds_a_run),
)


def frontier_rows(rows: Sequence[Row], cost: Cost) -> list[Row]:
    """Those that no other beats in both: as cheap or cheaper, and better. Cheapest first."""
    known = sorted(_known(rows, cost), key=lambda r: (cost.of(r), r.value or 0.0))
    best, found = math.inf, []
    for row in known:
        if row.value is not None and row.value < best:
            best = row.value
            found.append(row)
    return found


def _known(rows: Sequence[Row], cost: Cost) -> list[Row]:
    """Measured at the whole budget: at a share of it a loss says nothing of the end."""
    return [r for r in rows if r.value is not None and r.share == 1.0 and cost.of(r) > 0]


def draw_frontier(rows: Sequence[Row], cost: Cost, metric: str) -> str:
    """A dot a row, bars of one standard deviation from seed to seed, a line along the frontier."""
    known = _known(rows, cost)
    if not known:
        return ""
    x = Scale.around([cost.of(r) for r in known], log=True)
    heights = [r.value + s * (r.deviation or 0.0) for r in known if r.value for s in (-1, 1)]
    y = Scale.around(heights)

    def at(row: Row, value: float) -> tuple[float, float]:
        across = 100 * float(x.position(cost.of(row)))
        return across, (1 - float(y.position(value))) * HEIGHT

    marks = ""
    edge = [at(r, r.value or 0.0) for r in frontier_rows(rows, cost)]
    for (x1, y1), (x2, y2) in itertools.pairwise(edge):
        marks += (
            f'<line class="step c2" x1="{x1:.2f}%" y1="{y1:.1f}" x2="{x2:.2f}%" y2="{y2:.1f}"/>'
        )
    for row in known:
        value = row.value or 0.0
        across, up = at(row, value)
        low, high = (
            at(row, value - (row.deviation or 0.0))[1],
            at(row, value + (row.deviation or 0))[1],
        )
        colour = f"c{COLOUR.get(row.state, 5)}"
        words = tag("title", escape(f"{row.name}: {value:.4f} at {number(cost.of(row))}"))
        marks += (
            f'<g>{words}<line class="bar {colour}" x1="{across:.2f}%" x2="{across:.2f}%" '
            f'y1="{low:.1f}" y2="{high:.1f}"/>'
            f'<circle class="dot {colour}" r="4" cx="{across:.2f}%" cy="{up:.1f}"/></g>'
        )
    words = f"{cost.title}: " + "; ".join(
        f"{r.name} {r.value:.4f} at {number(cost.of(r))}" for r in frontier_rows(rows, cost)
    )
    plot = tag(
        "svg",
        tag("title", escape(cost.title)) + tag("desc", escape(words)) + _axes(x, y, cost) + marks,
        class_="plot",
        role="img",
        width="100%",
        height=HEIGHT,
        aria_label=words,
    )
    caption = tag("h3", escape(cost.title)) + tag(
        "p", escape(f"{metric}, mean and standard deviation over seeds; the frontier is dotted")
    )
    body = tag("figcaption", caption) + _legend(known) + tag("div", plot, class_="linear")
    return tag("figure", body, id=f"frontier-{cost.name}")


def _legend(rows: Sequence[Row]) -> str:
    states = dict.fromkeys(r.state for r in rows)
    items = "".join(
        tag(
            "li",
            '<svg class="key" aria-hidden="true" width="12" height="12">'
            f'<circle cx="6" cy="6" r="4" class="dot c{COLOUR.get(state, 5)}"/></svg>'
            + escape(state),
        )
        for state in states
    )
    return tag("ul", items, class_="legend")


def _axes(x: Scale, y: Scale, cost: Cost) -> str:
    marks = ""
    for t in y.ticks():
        up = (1 - t.position) * HEIGHT
        marks += f'<line class="grid" x1="0" x2="100%" y1="{up:.1f}" y2="{up:.1f}"/>'
        marks += (
            f'<text class="tick" x="0" dx="-8" y="{up:.1f}" dy="4" text-anchor="end">'
            f"{t.label}</text>"
        )
    for t in x.ticks():
        across = f"{100 * t.position:.2f}%"
        marks += f'<line class="grid" y1="0" y2="{HEIGHT}" x1="{across}" x2="{across}"/>'
        marks += (
            f'<text class="tick" x="{across}" y="{HEIGHT + 18}" text-anchor="middle">'
            f"{t.label}</text>"
        )
    return marks + (
        f'<text class="tick" x="50%" y="{HEIGHT + 36}" text-anchor="middle">'
        f"{escape(cost.unit)}</text>"
    )


def _compared(row: Row) -> str:
    """Its name, and where it was compared, when that was before its end."""
    return row.name if row.share == 1.0 else f"{row.name} (at {row.share:.0%} of the budget)"


def draw_effects(rows: Sequence[Row], threshold: float, metric: str) -> str:
    """A bar for each interval, the best effect on top; left of the line is better."""
    known = sorted((r for r in rows if r.low is not None), key=lambda r: r.mean or 0.0)
    if not known:
        return ""
    reach = 3 * max(abs(r.mean or 0.0) for r in known) + threshold  # a huge interval is cut off
    ends = [e for r in known for e in (r.low, r.high) if e is not None and abs(e) <= reach]
    x = Scale.around([0.0, -threshold, *ends, *(r.mean or 0.0 for r in known)])
    height = ROW * len(known)

    def across(value: float) -> float:
        return 100 * min(1.0, max(0.0, float(x.position(value))))

    marks = ""
    for value, style in ((0.0, "zero"), (-threshold, "level")):
        marks += (
            f'<line class="{style}" x1="{across(value):.2f}%" x2="{across(value):.2f}%" y1="0" '
            f'y2="{height}"/>'
        )
    for i, row in enumerate(known):
        up, colour = ROW * i + 18, f"c{COLOUR.get(row.state, 5)}"
        marks += (
            f'<line class="bar {colour}" x1="{across(row.low or 0.0):.2f}%" '
            f'x2="{across(row.high or 0.0):.2f}%" y1="{up}" y2="{up}"/>'
            f'<circle class="dot {colour}" r="3.5" cx="{across(row.mean or 0.0):.2f}%" cy="{up}"/>'
            f'<text class="level-name" x="0" y="{up - 6}">{escape(_compared(row))}</text>'
        )
    for t in x.ticks():
        marks += (
            f'<text class="tick" x="{100 * t.position:.2f}%" y="{height + 18}" '
            f'text-anchor="middle">{t.label}</text>'
        )
    words = "; ".join(
        f"{_compared(r)} {r.mean:+.4f} ({r.low:+.4f} to {r.high:+.4f})" for r in known
    )
    plot = tag(
        "svg",
        tag("title", "Effects, ranked") + tag("desc", escape(words)) + marks,
        class_="plot",
        role="img",
        width="100%",
        height=height,
        aria_label=f"Effects, ranked: {words}",
    )
    caption = tag("h3", "Effects, ranked") + tag(
        "p",
        escape(f"paired difference of {metric}, with its interval; dashed: the threshold"),
    )
    body = tag("figcaption", caption) + _legend(known) + tag("div", plot, class_="effects")
    return tag("figure", body, id="effects")
