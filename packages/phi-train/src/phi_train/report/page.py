"""The report: one HTML file that needs nothing else, no script, no network."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from phi_model.files import atomic_write
from phi_train.report.charts import all_charts, names_of
from phi_train.report.record import RunRecord, Sample
from phi_train.report.repeat import repeat_command
from phi_train.report.scale import number
from phi_train.report.style import CSS
from phi_train.report.summary import state, summary, verdict
from phi_train.report.text import escape, tag

__all__ = ["page", "write_page"]

# no script runs and nothing is fetched, even if a run's text found a way into the markup
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
MOST_SAMPLES = 12


def write_page(runs: Sequence[RunRecord], path: str | os.PathLike[str]) -> None:
    """Writes the report of `runs` to `path`, whole or not at all."""
    content = page(runs).encode("utf-8", "replace")
    with atomic_write(path) as file:
        file.write(content)


def page(runs: Sequence[RunRecord]) -> str:
    """The report of one run, or of several compared, as HTML."""
    names = names_of(runs)
    title = f"Training run {names[0]}" if len(runs) == 1 else f"{len(runs)} training runs"
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{CSS}</style>'
    )
    charts = all_charts(runs)
    body = _opening(runs, names, title)
    if charts:
        body += tag("section", tag("h2", "Curves") + tag("div", charts, class_="figures"))
    body += "".join(_samples(run, name, runs) for run, name in zip(runs, names, strict=True))
    body += "".join(_details(run, name, runs) for run, name in zip(runs, names, strict=True))
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _opening(runs: Sequence[RunRecord], names: Sequence[str], title: str) -> str:
    if len(runs) > 1:
        words = "".join(
            tag("h3", escape(name) + " " + _badge(run)) + _sentences(run)
            for run, name in zip(runs, names, strict=True)
        )
        return tag("header", tag("h1", escape(title)) + _comparison(runs, names) + words)
    run = runs[0]
    heading = tag("h1", escape(title) + " " + _badge(run))
    return tag("header", heading + _sentences(run) + _cards(run))


def _badge(run: RunRecord) -> str:
    return tag("span", state(run), class_=f"badge {state(run)}")


def _sentences(run: RunRecord) -> str:
    words = tag("p", escape(" ".join(verdict(run))))
    if run.changed is None:
        return words
    when = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(run.changed))
    return words + tag("p", f"Last recorded {escape(when)}.", class_="soft")


def _figures(run: RunRecord) -> dict[str, str]:
    """The figures worth showing large, those that are known."""
    s = summary(run)
    loss = s["final_loss"]
    found = {
        "held-out loss, nats a token": _decimals(loss),
        "held-out loss, last slice": None if loss is not None else _decimals(s["valid_loss"]),
        "bits a byte": _decimals(s["bits_per_byte"]),
        "bits a byte above the floor": _decimals(s["gap_bits_per_byte"]),
        "training loss, smoothed": _decimals(s["train_loss"]),
        "tokens seen": number(s["tokens"]) if s["tokens"] else None,
        "tokens a second": number(round(s["tokens_per_second"]))
        if s["tokens_per_second"]
        else None,
        "time in steps": _clock(s["seconds"]) if s["seconds"] else None,
        "parameters": number(s["parameters"]) if s["parameters"] else None,
    }
    return {name: value for name, value in found.items() if value}


def _decimals(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _cards(run: RunRecord) -> str:
    figures = _figures(run).items()
    cards = (tag("li", tag("b", escape(v)) + tag("span", escape(k))) for k, v in figures)
    return tag("ul", "".join(cards), class_="cards") + _time_shares(run)


def _time_shares(run: RunRecord) -> str:
    shares = sorted(run.time_shares.items(), key=lambda item: -item[1])
    if not shares:
        return ""
    words = ", ".join(f"{part} {share:.1%}" for part, share in shares)
    return tag("p", escape(f"Where the time of a step goes: {words}."), class_="soft")


def _comparison(runs: Sequence[RunRecord], names: Sequence[str]) -> str:
    """A row for each run, a column for each figure that any of them has."""
    rows = [_figures(run) for run in runs]
    heads = list(dict.fromkeys(name for row in rows for name in row))
    top = "".join(tag("th", escape(h), scope="col") for h in ["run", "state", "step", *heads])
    body = ""
    for run, name, row in zip(runs, names, rows, strict=True):
        cells = [state(run), f"{run.step:,}", *(row.get(h, "") for h in heads)]
        body += tag(
            "tr",
            tag("th", escape(name), scope="row") + "".join(tag("td", escape(c)) for c in cells),
        )
    table = tag("table", tag("thead", tag("tr", top)) + tag("tbody", body))
    return tag("div", table, class_="scroll", tabindex="0", role="group", aria_label="Comparison")


def _samples(run: RunRecord, name: str, runs: Sequence[RunRecord]) -> str:
    if not run.samples:
        return ""
    shown = _spread(run.samples)
    title = "Samples over time" if len(runs) == 1 else f"Samples over time: {name}"
    words = ""
    if len(shown) < len(run.samples):
        words = tag("p", f"{len(shown)} of {len(run.samples):,}, evenly spaced.", class_="soft")
    for sample in shown:
        text = tag("pre", tag("b", escape(sample.prompt)) + escape(sample.text))
        words += tag("div", tag("h3", f"Step {sample.step:,}") + text, class_="sample")
    return tag("section", tag("h2", escape(title)) + words)


def _spread(samples: Sequence[Sample]) -> list[Sample]:
    """At most a dozen, first and last among them."""
    n = len(samples)
    if n <= MOST_SAMPLES:
        return list(samples)
    return [samples[round(i * (n - 1) / (MOST_SAMPLES - 1))] for i in range(MOST_SAMPLES)]


def _details(run: RunRecord, name: str, runs: Sequence[RunRecord]) -> str:
    title = "How it was made" if len(runs) == 1 else f"How it was made: {name}"
    parts = tag("h2", escape(title))
    if run.config:
        parts += tag("h3", "To repeat it") + tag("pre", escape(repeat_command(run)))
        parts += tag("p", escape(_note(run)), class_="soft")
    if "command" in run.environment:
        parts += tag("h3", "As it was typed") + tag("pre", escape(run.environment["command"]))
    tables = _facts("Settings", run.config) + _facts("Environment", _flat(run.environment))
    parts += tag("div", tables, class_="columns")
    if run.config_text:
        summary_line = tag("summary", "config.toml, to copy")
        parts += tag("details", summary_line + tag("pre", escape(run.config_text)))
    return tag("section", parts)


def _note(run: RunRecord) -> str:
    where = "In the folder where it was started: a path in its settings may be relative to that. "
    if run.config.get("seconds"):
        return where + "Its budget is in seconds, so it will not be the same to the last bit."
    return where + "The same processor, BLAS, numpy and text give the same to the last bit."


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Tables within the table become rows of their own; the command stands above."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {str(k): v for k, v in value.items()}
        elif key != "command":
            flat[str(key)] = value
    return flat


def _facts(title: str, values: Mapping[str, Any]) -> str:
    if not values:
        return tag("div", tag("h3", title) + tag("p", "Not recorded.", class_="soft"))
    rows = "".join(
        tag("tr", tag("th", escape(k), scope="row") + tag("td", escape(_plain(v))))
        for k, v in values.items()
    )
    return tag("div", tag("h3", title) + tag("table", tag("tbody", rows), class_="facts"))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} = {v}" for k, v in value.items()) or "–"
    return "–" if value == "" else str(value)
