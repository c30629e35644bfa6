"""What came of an experiment, for people: one HTML page that needs nothing else, and Markdown.

Both say the same, from the journal alone: the verdict, what it cost, the frontier, the effects
with their intervals, what did not work, and the command that repeats each.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phi_model.files import atomic_write
from phi_train.experiment.experiment import Experiment
from phi_train.experiment.final import Final
from phi_train.experiment.frontier import COSTS, CSS, draw_effects, draw_frontier, frontier_rows
from phi_train.experiment.ledger import CUT_OFF, NOT_RUN, Row, search_ledger, study_ledger
from phi_train.experiment.plan import SOURCES
from phi_train.experiment.run import known_search
from phi_train.experiment.search import CONFIRMATION_SEED, Search
from phi_train.experiment.toml import toml_table, toml_value
from phi_train.report.page import POLICY
from phi_train.report.scale import number
from phi_train.report.style import CSS as PAGE_CSS
from phi_train.report.text import escape, tag

__all__ = ["markdown", "page", "report_of", "write_report"]

NEGATIVE = ("discard", "diverged", "crashed", "killed")
UNFINISHED = {CUT_OFF: "undecided", NOT_RUN: "not run"}  # says nothing against them
HEADS = (
    *("name", "state", "strategy", "against", "budget", "seeds", "value", "difference", "interval"),
    *("p", "p, all", "steps", "tokens", "seconds", "FLOPs", "why"),
)


def report_of(
    experiment: Experiment, *, overrides: Mapping[str, Any] | None = None
) -> tuple[list[Row], Search | None, Final | None]:
    """The ledger of an experiment from its journal; a search where it has a table [search]."""
    if not experiment.search and experiment.journal.name != "journal.jsonl":
        return study_ledger(experiment), None, None
    search, final = known_search(experiment, overrides=overrides)
    return search_ledger(search), search, final


def write_report(
    experiment: Experiment,
    rows: Sequence[Row],
    folder: str | os.PathLike[str],
    *,
    search: Search | None = None,
    final: Final | None = None,
) -> tuple[Path, Path]:
    """report.html, report.md and repeat/*.toml in `folder`; returns the first two."""
    folder = Path(folder)
    repeats = folder / "repeat"
    repeats.mkdir(parents=True, exist_ok=True)
    commands = {}
    for i, row in enumerate(rows):
        path = repeats / f"{i:03d}.toml"
        commands[row.name] = _command(experiment, path, search)
        if search is not None:
            _write(path, _repeat_file(search, row, rows, i))
    verdict = _verdict(experiment, rows, search, final)
    html, text = folder / "report.html", folder / "report.md"
    _write(html, page(experiment, rows, verdict, commands))
    _write(text, markdown(experiment, rows, verdict, commands))
    return html, text


def _write(path: Path, content: str) -> None:
    with atomic_write(path) as file:
        file.write(content.encode("utf-8", "replace"))


# what it says


def _verdict(
    experiment: Experiment, rows: Sequence[Row], search: Search | None, final: Final | None
) -> list[str]:
    counts = Counter(_shown(row) for row in rows if row.against and row.reason != NOT_RUN)
    said = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    lines = [f"{counts.total()} tried: {said or 'nothing yet'}."]
    if missing := sum(row.reason == NOT_RUN for row in rows):
        lines.append(f"{missing} not run yet.")
    failed = next((r for r in rows if not r.against and _failed(r)), None)
    if failed is not None:
        lines.append(f"There is nothing to compare with: {failed.name} {failed.state}.")
    if search is None:
        lines.append(
            f"Intervals hold all together with a confidence of {1 - experiment.error_rate:.0%} "
            "(Bonferroni)."
        )
        return lines
    noise = f"is {search.noise():.4f} {experiment.metric}" if search.noise() else "is not known yet"
    lines.append(
        f"The baseline's standard deviation from seed to seed {noise}. The chance of a single "
        f"wrong promote in all of this search is at most {experiment.error_rate:.0%}; p for all "
        "counts how many were looked at (Holm)."
    )
    lines.append(
        "No change was promoted." if search.best.number == 0 else f"The best is {search.best.name}."
    )
    difference = final.difference if final is not None else None
    if final is None:
        lines.append("The final text is closed: nobody has seen how the winner does on it.")
    elif difference is None:
        lines.append("The final text was opened; its runs are not all done, or one failed.")
    else:
        lines.append(
            f"On the final text, opened once, with {difference.pairs} new seeds, the winner "
            f"differs from the baseline by {difference.mean:+.4f} ({difference.low:+.4f} to "
            f"{difference.high:+.4f}) {experiment.metric}."
        )
    return lines


def _shown(row: Row) -> str:
    """Its state; what was merely not decided in time was not killed by anything it did."""
    return UNFINISHED.get(row.reason, row.state)


def _failed(row: Row) -> bool:
    return row.state in NEGATIVE and row.reason not in UNFINISHED


def _cells(row: Row) -> list[str]:
    def decimals(value: float | None, form: str = ".4f") -> str:
        return "" if value is None else format(value, form)

    interval = "" if row.low is None else f"{row.low:+.4f} to {row.high:+.4f}"
    value = decimals(row.value)
    if row.deviation is not None:
        value += f" ± {row.deviation:.4f}"
    return [
        row.name,
        _shown(row),
        row.strategy,
        row.against,
        f"{row.share:.0%}",
        str(len(row.seeds)),
        value,
        decimals(row.mean, "+.4f"),
        interval,
        decimals(row.p, ".2g"),
        decimals(row.adjusted_p, ".2g"),
        f"{row.steps:,}",
        number(row.tokens),
        f"{row.seconds:,.1f}",
        number(row.flops),
        row.reason,
    ]


def _totals(rows: Sequence[Row]) -> dict[str, str]:
    return {
        "steps": f"{sum(r.steps for r in rows):,}",
        "tokens": number(sum(r.tokens for r in rows)),
        "seconds of one core": f"{sum(r.seconds for r in rows):,.0f}",
        "FLOPs": number(sum(r.flops for r in rows)),
    }


def _ranked(rows: Sequence[Row]) -> list[Row]:
    return sorted((r for r in rows if r.low is not None), key=lambda r: r.mean or 0.0)


# how to repeat


def _command(experiment: Experiment, path: Path, search: Search | None) -> str:
    if search is None:
        words = ["phi-train", "experiment", "run", experiment.id]
        if experiment.folder.parts[:1] != ("experiments",):  # where it looks by itself
            words += ["--folder", str(experiment.folder)]
        return shlex.join(words)
    return shlex.join(["phi-train", "experiment", "run", str(path)])


def _repeat_file(search: Search, row: Row, rows: Sequence[Row], number_: int) -> str:
    """A study of two arms, on the same text and seeds as the search had: the same figures."""
    experiment = search.experiment
    sources = {k: v for k, v in (search.overrides or {}).items() if k in SOURCES}
    against = next((r for r in rows if r.name == row.against), row)
    confirmed = min(row.seeds, default=0) >= CONFIRMATION_SEED
    part = "confirmation" if confirmed else "search"
    lines = [
        f"id = {toml_value(f'{experiment.id}-{number_:03d}')}",
        f"question = {toml_value(f'Does this repeat {row.name} of {experiment.id}?')}",
        'hypothesis = "Yes, to the last digit on the same processor."',
        f"success = {toml_value(f'The ledger said {_shown(row)}.')}",
        f"metric = {toml_value(experiment.metric)}",
        f"threshold = {toml_value(experiment.threshold)}",
        f"seeds = {toml_value(list(row.seeds) or [0])}",
        f"held_out = {toml_value(part)}",
        f"share = {toml_value(row.share)}",
        *toml_table("base", {**against.config, **sources}),
    ]
    if against is not row:
        lines += [
            "[arms.before]",
            *toml_table("arms.after", _differing(row.config, against.config)),
        ]
    return "\n".join(lines) + "\n"


def _differing(config: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            value = _differing(value, base.get(name, {}))  # noqa: PLW2901 (what is other in it)
            if not value:
                continue
        if value != base.get(name):
            found[name] = value
    return found


# Markdown


def markdown(
    experiment: Experiment,
    rows: Sequence[Row],
    verdict: Sequence[str],
    commands: Mapping[str, str],
) -> str:
    """The report as text."""
    parts = [
        f"# {experiment.id}",
        f"**Question.** {experiment.question}",
        f"**Hypothesis.** {experiment.hypothesis}",
        f"**Success.** {experiment.success}",
        "**Result.** " + " ".join(verdict),
        "Spent: " + ", ".join(f"{v} {k}" for k, v in _totals(rows).items()) + ".",
        "## Effects, ranked",
        f"Paired differences of {experiment.metric} at a share of the budget; below 0 is better.",
        _md_table(
            ("", "against", "at", "difference", "interval", "p", "p, all", "state"),
            [[c[0], c[3], c[4], *c[7:11], c[1]] for c in map(_cells, _ranked(rows))],
        ),
        "## Frontier",
    ]
    for cost in COSTS:
        edge = frontier_rows(rows, cost)
        table = [[r.name, number(cost.of(r)), _cells(r)[6]] for r in edge]
        parts.append(_md_table((cost.title, cost.unit, experiment.metric), table))
    parts += ["## What did not work", _md_table(("", "state", "why"), _negative(rows))]
    parts += ["## Ledger", _md_table(HEADS, [_cells(r) for r in rows])]
    repeat = [[name, f"`{command}`"] for name, command in commands.items()]
    parts += ["## To repeat", _md_table(("", "command"), repeat)]
    if experiment.notes:
        parts += ["## Notes", experiment.notes]
    return "\n\n".join(parts) + "\n"


def _negative(rows: Sequence[Row]) -> list[list[str]]:
    return [[r.name, r.state, r.reason] for r in rows if _failed(r)]


def _md_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "Nothing."
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows]
    return "\n".join(lines)


# HTML


def page(
    experiment: Experiment,
    rows: Sequence[Row],
    verdict: Sequence[str],
    commands: Mapping[str, str],
) -> str:
    """The report as one page."""
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(experiment.id)}</title>'
        f"<style>{PAGE_CSS}{CSS}</style>"
    )
    cards = "".join(
        tag("li", tag("b", escape(value)) + tag("span", escape(name)))
        for name, value in _totals(rows).items()
    )
    words = "".join(
        tag("p", tag("b", f"{name}. ") + escape(text))
        for name, text in (
            ("Question", experiment.question),
            ("Hypothesis", experiment.hypothesis),
            ("Success", experiment.success),
            ("Result", " ".join(verdict)),
        )
    )
    figures = "".join(draw_frontier(rows, cost, experiment.metric) for cost in COSTS)
    figures += draw_effects(rows, experiment.threshold, experiment.metric)
    body = tag(
        "header", tag("h1", escape(experiment.id)) + words + tag("ul", cards, class_="cards")
    )
    if figures:
        pictures = tag("div", figures, class_="figures")
        body += tag("section", tag("h2", "Frontier and effects") + pictures)
    negative = _html_table(("", "state", "why"), _negative(rows))
    body += tag("section", tag("h2", "What did not work") + negative)
    ledger = _html_table(HEADS, [_cells(r) for r in rows], badge=1)
    body += tag("section", tag("h2", "Ledger") + ledger)
    repeat = "".join(
        tag("h3", escape(name)) + tag("pre", escape(command)) for name, command in commands.items()
    )
    body += tag("section", tag("h2", "To repeat") + repeat)
    if experiment.notes:
        body += tag("section", tag("h2", "Notes") + tag("pre", escape(experiment.notes)))
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _html_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, badge: int = -1) -> str:
    if not rows:
        return tag("p", "Nothing.")
    top = tag("tr", "".join(tag("th", escape(h), scope="col") for h in heads))
    body = ""
    for row in rows:
        cells = [
            tag("span", escape(c), class_=f"badge {c}") if i == badge else escape(c)
            for i, c in enumerate(row)
        ]
        rest = "".join(tag("td", c) for c in cells[1:])
        body += tag("tr", tag("th", cells[0], scope="row") + rest)
    table = tag("table", tag("thead", top) + tag("tbody", body))
    return tag("div", table, class_="scroll", tabindex="0", role="group", aria_label="Table")
