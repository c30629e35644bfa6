"""Line charts as inline SVG that any width may stretch: lines stretch, letters do not.

The plot is two drawings in one place. The inner one has a grid of 1000 by 1000 and is stretched
over the whole plot, its strokes excepted; the outer one holds text and dots, placed by percent
of the width. So one drawing serves a phone and a wide screen, with letters of the page's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_train.report.curve import Curve, thin
from phi_train.report.scale import Scale, number
from phi_train.report.text import escape, tag

__all__ = ["COLOURS", "Chart", "Level", "Series", "draw"]

Array = NDArray[Any]

COLOURS = 8  # that the style sheet knows, c0 to c7; after them dashes begin
HEIGHT = 300  # pixels of the plot
GRID = 1000
LETTER = 15  # pixels from one line of text to the next
MOST_DOTS = 60  # of one series; more would be a bead chain
MOST_ROWS = 12  # of the table that stands in for the picture


@dataclass(frozen=True)
class Series:
    """A curve, drawn as a "line", a "faint" one behind the others, or "dots" on a thin one."""

    label: str
    curve: Curve
    colour: int = 0
    kind: str = "line"


@dataclass(frozen=True)
class Level:
    """A horizontal line with its name on it; the colour None is the text's own."""

    label: str
    value: float
    colour: int | None = None


@dataclass(frozen=True)
class Chart:
    """What to draw. The name is unique on the page, its letters fit for an id."""

    name: str
    title: str
    unit: str
    series: Sequence[Series]
    levels: Sequence[Level] = ()
    log: bool = False  # the values
    zero: bool = False  # the values' axis begins at 0
    log_steps: bool = False  # offers the steps on a logarithmic axis as well


def draw(chart: Chart) -> str:
    """A figure: caption, legend, plot, and the same in a table. Empty without any point."""
    if not any(len(s.curve) for s in chart.series):
        return ""
    plots = tag("div", _plot(chart, log_steps=False), class_="linear")
    choice = ""
    if chart.log_steps:
        plots += tag("div", _plot(chart, log_steps=True), class_="log")
        choice = _choice(chart.name)
    caption = tag("figcaption", tag("h3", escape(chart.title)) + tag("p", escape(_unit(chart))))
    return tag("figure", caption + _legend(chart) + choice + plots + _table(chart), id=chart.name)


def _unit(chart: Chart) -> str:
    return f"{chart.unit}, logarithmic" if chart.log else chart.unit


def _choice(name: str) -> str:
    """Two radio buttons, worked by the style sheet alone."""
    buttons = ""
    for kind, label, checked in (("linear", "linear steps", " checked"), ("log", "log", "")):
        key = f"{name}-{kind}"
        buttons += (
            f'<input type="radio" class="to-{kind}" name="{name}-axis" id="{key}"{checked}>'
            f'<label for="{key}">{label}</label>'
        )
    return buttons


def _legend(chart: Chart) -> str:
    items = ""
    for s in chart.series:
        if len(s.curve):
            mark = (
                f'<svg class="key" aria-hidden="true" width="26" height="12">'
                f'<line x1="1" x2="25" y1="6" y2="6" class="{_style(s)}"/>'
                + (f'<circle cx="13" cy="6" r="3.5" class="{_dot(s)}"/>' * (s.kind == "dots"))
                + "</svg>"
            )
            items += tag("li", mark + escape(s.label))
    return tag("ul", items, class_="legend")


def _style(series: Series) -> str:
    dashed = " dashed" if series.colour >= COLOURS else ""
    return f"{series.kind} c{series.colour % COLOURS}{dashed}"


def _dot(series: Series) -> str:
    return f"dot c{series.colour % COLOURS}"


def _scales(chart: Chart, *, log_steps: bool) -> tuple[Scale, Scale]:
    drawn = [s.curve for s in chart.series if len(s.curve)]
    steps = np.concatenate([c.steps for c in drawn])
    values = np.concatenate([_within(s) for s in chart.series if len(s.curve)])
    heights = [*values, *(level.value for level in chart.levels)]
    x = Scale.around(np.maximum(steps, 1) if log_steps else steps, log=log_steps, tight=True)
    return x, Scale.around(heights, log=chart.log, zero=chart.zero)


def _within(series: Series) -> Array:
    """The values that the axis must hold: of a faint line not the few outliers."""
    values = series.curve.values
    if series.kind != "faint" or values.size < 50:
        return values
    low, high = np.quantile(values, (0.01, 0.99))
    return np.asarray(values[(values >= low) & (values <= high)])


def _plot(chart: Chart, *, log_steps: bool) -> str:
    x, y = _scales(chart, log_steps=log_steps)
    key = f"{chart.name}-{'log' if log_steps else 'linear'}-text"
    title = tag("title", escape(chart.title), id=f"{key}-title")
    description = tag("desc", escape(_described(chart)), id=f"{key}-about")
    dots = "".join(_dots(s, x, y) for s in chart.series if s.kind == "dots")
    inner = tag(
        "svg",
        _grid(x, y) + "".join(_line(s, x, y) for s in _backmost_first(chart.series)),
        viewBox=f"0 0 {GRID} {GRID}",
        preserveAspectRatio="none",
        width="100%",
        height="100%",
    )
    return tag(
        "svg",
        title + description + inner + _axes(x, y) + _levels(chart.levels, y) + dots,
        class_="plot",
        role="img",
        width="100%",
        height=HEIGHT,
        aria_labelledby=f"{key}-title {key}-about",
    )


def _backmost_first(series: Sequence[Series]) -> list[Series]:
    return sorted(series, key=lambda s: s.kind != "faint")


def _grid(x: Scale, y: Scale) -> str:
    lines = "".join(f"M{t.position * GRID:.1f} 0V{GRID}" for t in x.ticks())
    lines += "".join(f"M0 {(1 - t.position) * GRID:.1f}H{GRID}" for t in y.ticks())
    return f'<path class="grid" d="{lines}"/>'


def _line(series: Series, x: Scale, y: Scale) -> str:
    curve = series.curve
    if not len(curve):
        return ""
    across = x.position(curve.steps)
    kept = thin(curve, across)
    along, up = across[kept] * GRID, (1 - y.position(curve.values[kept])) * GRID
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(along, up, strict=True))
    if len(kept) == 1:
        points += " " + points  # a line to itself: its round ends are seen
    return f'<polyline class="{_style(series)}" points="{points}"/>'


def _dots(series: Series, x: Scale, y: Scale) -> str:
    curve = series.curve
    if len(curve) > MOST_DOTS:
        return ""
    return "".join(
        f'<circle class="{_dot(series)}" r="3.5" cx="{100 * a:.2f}%" cy="{(1 - b) * HEIGHT:.1f}"/>'
        for a, b in zip(x.position(curve.steps), y.position(curve.values), strict=True)
    )


def _axes(x: Scale, y: Scale) -> str:
    labels = "".join(
        f'<text class="tick" x="0" dx="-8" y="{(1 - t.position) * HEIGHT:.1f}" dy="4" '
        f'text-anchor="end">{t.label}</text>'
        for t in y.ticks()
    )
    for t in x.ticks():
        labels += (
            f'<text class="tick" x="{100 * t.position:.2f}%" y="{HEIGHT + 18}" '
            f'text-anchor="middle">{t.label}</text>'
        )
    return labels + (
        f'<text class="tick" x="50%" y="{HEIGHT + 36}" text-anchor="middle">step</text>'
    )


def _levels(levels: Sequence[Level], y: Scale) -> str:
    """Lines across, highest first; a name that would lie on the one above it moves down."""
    lines = names = ""
    lowest_name = float(-LETTER)
    for level in sorted(levels, key=lambda one: -one.value):
        height = (1 - float(y.position(level.value))) * HEIGHT
        name_at = max(height - 5, lowest_name + LETTER)
        lowest_name = name_at
        colour = "" if level.colour is None else f" c{level.colour % COLOURS}"
        lines += (
            f'<line class="level{colour}" x1="0" x2="100%" y1="{height:.1f}" y2="{height:.1f}"/>'
        )
        names += (
            f'<text class="level-name{colour}" x="100%" dx="-6" y="{name_at:.1f}" '
            f'text-anchor="end">{escape(level.label)} {level.value:.3f}</text>'
        )
    return lines + names


def _described(chart: Chart) -> str:
    """The picture in words."""
    parts = [
        f"{s.label}: {number(float(s.curve.values[0]))} at step {s.curve.steps[0]:,.0f}, "
        f"{number(float(s.curve.values[-1]))} at step {s.curve.steps[-1]:,.0f}"
        for s in chart.series
        if len(s.curve) and s.kind != "faint"
    ]
    parts += [f"{level.label}: {level.value:.3f}" for level in chart.levels]
    return f"{chart.title}, {_unit(chart)}, over steps. " + "; ".join(parts) + "."


def _table(chart: Chart) -> str:
    """A dozen rows, for readers of text."""
    shown = [s for s in chart.series if len(s.curve) and s.kind != "faint"]
    steps = np.unique(np.concatenate([s.curve.steps for s in shown]))
    chosen = steps[np.unique(np.linspace(0, steps.size - 1, MOST_ROWS).round().astype(int))]
    head = tag("tr", "".join(tag("th", escape(t), scope="col") for t in _heads(shown)))
    rows = ""
    for step in chosen:
        cells = "".join(tag("td", _value_at(s.curve, step)) for s in shown)
        rows += tag("tr", tag("th", f"{step:,.0f}", scope="row") + cells)
    table = tag("div", tag("table", tag("thead", head) + tag("tbody", rows)), class_="scroll")
    return tag("details", tag("summary", "The same in figures") + table)


def _heads(series: Sequence[Series]) -> list[str]:
    return ["step", *(s.label for s in series)]


def _value_at(curve: Curve, step: float) -> str:
    """The value at `step`, or the last one before it."""
    place = int(np.searchsorted(curve.steps, step, side="right")) - 1
    return "" if place < 0 else number(float(curve.values[place]))
