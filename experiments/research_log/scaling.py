"""Result 4: loss against size and volume, its fits, the n-gram levels, tokens a parameter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from book import Book, spread, table
from figures import Figure, Line, draw
from fits import Fit, JointFit, fit_joint, fit_scaling, interval

__all__ = ["Point", "answer", "crossing", "points_of", "scaling", "text_points"]

LEVELS = ("unigram", "bigram", "trigram", "4-gram")
COUNTS = {"non_embedding": "outside the embedding", "parameters": "in all"}
LAWS = {Fit: "E + A / N^a + B / D^b", JointFit: "(A / N^(a/b) + B / D)^b"}
LATE = 500_000  # tokens: in less, the warm-up is a good part of a run
RESIDUAL = 0.05  # nats a token: the hypothesis of scaling-text.toml


@dataclass(frozen=True)
class Point:
    """One trial of a scaling table."""

    name: str  # of the size
    non_embedding: int
    parameters: int
    tokens: int
    loss: float


def points_of(book: Book, experiment: str, metric: str = "loss") -> tuple[Point, ...]:
    """By size, then by volume."""
    found = []
    for arm in book[experiment].arms:
        for o in book.outcomes(experiment, arm.name).values():
            if metric in o.metrics:
                name = arm.name.split(",")[0]
                loss = o.metrics[metric]
                found.append(Point(name, o.non_embedding, o.parameters, o.tokens, loss))
    return tuple(sorted(found, key=lambda p: (p.non_embedding, p.tokens)))


def text_points(book: Book) -> tuple[Point, ...]:
    """The table on the real text: up to an epoch, and four."""
    points = points_of(book, "scaling-text") + points_of(book, "scaling-epochs")
    return tuple(sorted(points, key=lambda p: (p.non_embedding, p.tokens)))


def by_size(points: Iterable[Point]) -> dict[str, list[Point]]:
    sizes: dict[str, list[Point]] = {}
    for point in points:
        sizes.setdefault(point.name, []).append(point)
    return sizes


def crossing(points: list[Point], level: float) -> str:
    """Tokens at which a size goes below a level: between two volumes by a straight line over
    log tokens, else the volume that bounds it.
    """
    below = [i for i, point in enumerate(points) if point.loss < level]
    if not below:
        return f"> {spoken(points[-1].tokens)}"
    first = below[0]
    if first == 0:
        return f"< {spoken(points[0].tokens)}"
    a, b = points[first - 1], points[first]
    share = (a.loss - level) / (a.loss - b.loss)
    return f"{spoken(a.tokens * (b.tokens / a.tokens) ** share)}"


def spoken(number: float) -> str:
    """1,234,567 as 1.2M."""
    if not np.isfinite(number):
        return "never"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def answer(book: Book) -> str | None:
    """The research question answered by the table, in one paragraph; None without a table."""
    sizes = by_size(text_points(book))
    levels = {n: v for n in LEVELS if (v := book.mean("levels", "base", n)) is not None}
    if not sizes or "unigram" not in levels:
        return None
    parts = []
    for name, level in levels.items():
        reached = [points for points in sizes.values() if min(p.loss for p in points) < level]
        if reached:
            least = reached[0]
            parts.append(
                f"{name} ({level:.2f}) from {spoken(least[0].non_embedding)} parameters, there "
                f"after {crossing(least, level)} tokens"
            )
        else:
            parts.append(f"{name} ({level:.2f}) by none")
    every = [p for points in sizes.values() for p in points]
    ends = f"{spoken(every[0].non_embedding)} and {spoken(every[-1].non_embedding)}"
    volumes = f"{spoken(min(p.tokens for p in every))} to {spoken(max(p.tokens for p in every))}"
    smallest = next(iter(sizes.values()))
    start = ""
    if min(p.loss for p in smallest) < levels["unigram"]:
        start = (
            "It never merely memorises frequencies: the smallest measured, of "
            f"{spoken(smallest[0].non_embedding)} parameters, is below the unigram level after "
            f"{crossing(smallest, levels['unigram'])} tokens; how much context it learns "
            "depends on both. "
        )
    return (
        f"{start}Measured between {ends} parameters outside the embedding and on {volumes} tokens, "
        f"the smallest sizes that go below the held-out levels are: {'; '.join(parts)}."
    )


def scaling(book: Book, figures: dict[str, str]) -> list[str]:
    """The section, and its figures."""
    lines = [
        "## 4. Scaling",
        "",
        "**TinyStories**, each point a run of its own whose schedule ends with its volume; at most "
        "four epochs. Nats a token, held out.",
        *_grid(text_points(book)),
    ]
    for name in ("scaling-text", "scaling-epochs", "scaling-corners", "scaling-rates"):
        lines += [book.state(name), ""]
    text = text_points(book)
    lines += _crossings(book, text)
    lines += _fits(text, floor=True, unit="nats a token") + _verdict(text)
    lines += _corners(book)
    if text:
        figures["scaling-text.svg"] = _figure(book, text)
    grammar = points_of(book, "scaling-grammar", "gap")
    lines += [
        "**The endless grammar**, where the excess loss is exact: bits a byte above the source's "
        "own entropy, no story seen twice.",
        *_grid(grammar, 4),
        book.state("scaling-grammar"),
        "",
        *_fits(grammar, floor=False, unit="bits a byte"),
        *_optimal(grammar),
    ]
    return lines


def _grid(points: tuple[Point, ...], digits: int = 3) -> list[str]:
    if not points:
        return [""]
    volumes = sorted({p.tokens for p in points})
    rows = []
    for own in by_size(points).values():
        found = {p.tokens: f"{p.loss:.{digits}f}" for p in own}
        cells = [found.get(volume, "-") for volume in volumes]
        rows.append([spoken(own[0].non_embedding), spoken(own[0].parameters), *cells])
    return table(["parameters", "in all", *(f"{spoken(v)} tokens" for v in volumes)], rows)


def _crossings(book: Book, points: tuple[Point, ...]) -> list[str]:
    levels = {n: v for n in LEVELS if (v := book.mean("levels", "base", n)) is not None}
    if not points or not levels:
        return []
    fit = _best(_late(points), "parameters", floor=True)
    rows = []
    for own in by_size(points).values():
        cells = [spoken(own[0].non_embedding)]
        for level in levels.values():
            cell = crossing(own, level)
            if fit is not None and not cell.startswith("<"):
                best, low, high = map(spoken, interval(fit.tokens_for(level, own[0].parameters)))
                cell += f"; fit {best}" + (f" ({low} to {high})" if low != "never" else "")
            cells.append(cell)
        rows.append(cells)
    head = ["parameters", *(f"{name}, {value:.3f}" for name, value in levels.items())]
    return [
        "Tokens after which a level (n-grams of the full set) is crossed: between two measured "
        f"volumes, and by the better law's fit to the volumes from {spoken(LATE)} tokens with its "
        "interval.",
        *table(head, rows),
    ]


def _late(points: tuple[Point, ...]) -> tuple[Point, ...]:
    return tuple(p for p in points if p.tokens >= LATE)


@cache
def _fitted(points: tuple[Point, ...], count: str, *, floor: bool) -> list[Fit | JointFit]:
    """Both laws; none for fewer than three sizes and volumes each: the exponents would mean
    nothing.
    """
    sizes = np.array([float(getattr(p, count)) for p in points])
    tokens = np.array([float(p.tokens) for p in points])
    losses = np.array([p.loss for p in points])
    if len(set(sizes)) < 3 or len(set(tokens)) < 3 or len(points) < 9:
        return []
    return [fit_scaling(sizes, tokens, losses, floor=floor), fit_joint(sizes, tokens, losses)]


def _best(points: tuple[Point, ...], count: str, *, floor: bool) -> Fit | JointFit | None:
    return min(_fitted(points, count, floor=floor), key=lambda fit: fit.residual, default=None)


def _fits(points: tuple[Point, ...], *, floor: bool, unit: str) -> list[str]:
    rows = []
    parts = {"all": points, f"from {spoken(LATE)}": _late(points)}
    fits = [
        (volumes, where, fit)
        for volumes, part in parts.items()
        for count, where in COUNTS.items()
        for fit in _fitted(part, count, floor=floor)
    ]
    for volumes, where, fit in fits:
        cells = [f"`{LAWS[type(fit)]}`", volumes, where]
        for values in (fit.floor, fit.size_power, fit.token_power):
            best, low, high = interval(values)
            cells.append(f"{best:.3f} ({low:.3f} to {high:.3f})" if values.any() else "0, exactly")
        rows.append([*cells, f"{fit.residual:.4f}"])
    if not rows:
        return ["No fit yet: it needs three sizes and three volumes at least.", ""]
    head = ["law", "volumes, tokens", "N: parameters", "E", "a", "b", f"residual, {unit}"]
    return [
        "Hoffmann et al. 2022 add what is short of each; in the law of Kaplan et al. 2020 what is "
        "shorter hides the other.",
        *table(head, rows),
        "Intervals: 95 %, by drawing the residuals anew 200 times.",
        "",
    ]


def _verdict(points: tuple[Point, ...]) -> list[str]:
    """What the fits say to the page's criterion, which was written before the runs."""
    words = [
        f"`{LAWS[type(fit)]}` {fit.residual:.3f} over {volumes}, N {where} "
        f"({'met' if fit.residual < RESIDUAL else 'missed'})"
        for part, volumes in (
            (points, "all volumes"),
            (_late(points), f"those from {spoken(LATE)} tokens, chosen after the fact"),
        )
        for count, where in COUNTS.items()
        if (fit := _best(part, count, floor=True)) is not None
    ]
    if not words:
        return []
    return [
        f"The page asked for residuals below {RESIDUAL} nats. The better law leaves: "
        f"{'; '.join(words)}.",
        "",
    ]


def _corners(book: Book) -> list[str]:
    rows = []
    for arm in book["scaling-corners"].arms:
        values = book.values("scaling-corners", arm.name) | book.values("scaling-text", arm.name)
        rows.append([arm.name, spread(values, 4)])
    if not book.is_begun("scaling-corners"):
        return []
    return ["Corners, seeds together:", *table(["corner", "nats a token"], rows)]


def _optimal(points: tuple[Point, ...]) -> list[str]:
    """Tokens a parameter for a given number of operations, beside Chinchilla's."""
    fits = [_best(points, count, floor=False) for count in COUNTS]
    if None in fits:
        return ["Tokens a parameter: not measured yet.", ""]
    flops = [6.0 * p.parameters * p.tokens for p in points]
    rows = []
    for budget in np.geomspace(min(flops) * 10, max(flops), 4):
        cells = [f"{budget:.1e}"]
        for fit in fits:
            assert fit is not None
            best, low, high = interval(fit.best_ratio(budget))
            cells.append(f"{best:.3g} ({low:.3g} to {high:.3g})")
        rows.append(cells)
    head = ["6 N D", *(f"tokens a parameter {where}" for where in COUNTS.values())]
    return [
        "Compute-optimal, from the better law's fits, inside the measured range of operations; "
        "Chinchilla (Hoffmann et al. 2022) has about 20. Above 1.2M parameters this is an "
        "extrapolation.",
        *table(head, rows),
    ]


def _figure(book: Book, points: tuple[Point, ...]) -> str:
    lines = [
        Line(f"{spoken(own[0].non_embedding)} parameters", [(p.tokens, p.loss) for p in own])
        for own in by_size(points).values()
    ]
    levels = {n: v for n in LEVELS if (v := book.mean("levels", "base", n)) is not None}
    return draw(
        Figure(
            title="TinyStories: held-out loss by size and volume, and n-gram levels",
            x="tokens trained on",
            y="nats a token",
            lines=lines,
            levels=levels,
        )
    )
