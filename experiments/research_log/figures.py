"""Figures of the research log: SVG files that stand alone, light or dark as the reader's screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from phi_train.report.scale import Scale

__all__ = ["Figure", "Line", "draw"]

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 40, 48  # pixels around the plot
COLOURS = ("#3b6fb6", "#c8553d", "#3f8f5f", "#8a5fb0", "#b0892c", "#2f8f9d", "#b0457f", "#777777")
STYLE = """text{font:13px system-ui,sans-serif;fill:#222}.grid{stroke:#ddd}.level{stroke:#888;
stroke-dasharray:2 4}.small{font-size:12px;fill:#666}.paper{fill:#fff}
@media(prefers-color-scheme:dark){text{fill:#ddd}.grid{stroke:#3a3a3a}.small{fill:#aaa}
.paper{fill:#181818}}"""


@dataclass(frozen=True)
class Line:
    """Points (x, y), joined; dashed for what is fitted, not measured."""

    label: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Figure:
    """levels: name -> a line across."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    levels: dict[str, float]
    log_x: bool = True
    log_y: bool = False


def draw(figure: Figure) -> str:
    """The SVG file's content."""
    lines = [line for line in figure.lines if line.points]
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points] + list(figure.levels.values())
    across = Scale.around(xs, log=figure.log_x)
    up = Scale.around(ys, log=figure.log_y)

    def place(x: float, y: float) -> tuple[float, float]:
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return (
            LEFT + width * float(across.position(x)),
            TOP + height * (1 - float(up.position(y))),
        )

    parts = [_frame(figure, across, up)]
    names: list[tuple[float, str, str]] = []  # height, colour, text
    for name, value in figure.levels.items():
        _, height = place(xs[0], value)
        parts.append(f'<path class="level" d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}"/>')
        names.append((height, "#888", f"{name} {value:.2f}"))
    for i, line in enumerate(lines):
        colour = COLOURS[i % len(COLOURS)]
        places = [place(*point) for point in line.points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        dash = ' stroke-dasharray="6 4"' if line.dashed or i >= len(COLOURS) else ""
        parts.append(f'<path fill="none" stroke="{colour}" stroke-width="2"{dash} d="{path}"/>')
        if len(places) <= 12 and not line.dashed:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places
            ]
        names.append((places[-1][1], colour, line.label))
    parts += _names(names)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(figure.title)}"><style>{STYLE}</style>'
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>' + "".join(parts) + "</svg>\n"
    )


def _frame(figure: Figure, across: Scale, up: Scale) -> str:
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    drawn = f'<text x="{LEFT}" y="24" font-weight="600">{escape(figure.title)}</text>'
    for tick in across.ticks():
        x = LEFT + width * tick.position
        drawn += f'<path class="grid" d="M{x:.1f} {TOP}v{height}"/>'
        drawn += (
            f'<text x="{x:.1f}" y="{TOP + height + 18}" text-anchor="middle">{tick.label}</text>'
        )
    for tick in up.ticks():
        y = TOP + height * (1 - tick.position)
        drawn += f'<path class="grid" d="M{LEFT} {y:.1f}h{width}"/>'
        drawn += f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick.label}</text>'
    drawn += (
        f'<text class="small" x="{LEFT + width / 2}" y="{HEIGHT - 10}" text-anchor="middle">'
        f"{escape(figure.x)}</text>"
        f'<text class="small" x="{LEFT}" y="{TOP - 2}" dx="-56">{escape(figure.y)}</text>'
    )
    return drawn


def _names(names: list[tuple[float, str, str]]) -> list[str]:
    """At the lines' right ends, pushed down where they would lie on each other."""
    drawn, lowest = [], float("-inf")
    for height, colour, text in sorted(names):
        at = max(height, lowest + 15)
        lowest = at
        drawn.append(
            f'<text class="small" x="{WIDTH - RIGHT + 8}" y="{at + 4:.1f}" '
            f'style="fill:{colour}">{escape(text)}</text>'
        )
    return drawn
