"""What the pages of this package share, of phi_train.report's own parts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phi_model.files import atomic_write
from phi_train.errors import RunError
from phi_train.report.chart import Chart, draw
from phi_train.report.page import POLICY
from phi_train.report.style import CSS
from phi_train.report.text import escape, tag

__all__ = ["cards", "facts", "figures", "over_iterations", "read_results", "table", "write"]


def read_results(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(settings, results). Raises RunError where an experiment is not finished."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        return config, json.loads((folder / "results.json").read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise RunError(
            f"{folder} holds no finished experiment: run the same command again, it goes on"
        ) from error


def write(folder: Path, title: str, body: str) -> Path:
    """A page around `body`, as report.html of the folder, whole or not at all."""
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{CSS}</style>'
    )
    page = f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'
    path = folder / "report.html"
    with atomic_write(path) as file:
        file.write(page.encode("utf-8", "replace"))
    return path


def over_iterations(chart: Chart | str, *, of: str = "iteration") -> str:
    """The figure, its axis named `of`: charts of runs are drawn over steps."""
    drawn = chart if isinstance(chart, str) else draw(chart)
    drawn = drawn.replace(">step<", f">{of}<").replace(" at step ", f" at {of} ")
    return drawn.replace(", over steps.", f", over {of}.")


def figures(drawn: str) -> str:
    """Charts side by side where there is room."""
    return tag("section", tag("h2", "Curves") + tag("div", drawn, class_="figures"))


def cards(values: Mapping[str, str]) -> str:
    """The figures that matter most, large."""
    items = "".join(
        tag("li", tag("b", escape(v)) + tag("span", escape(k))) for k, v in values.items()
    )
    return tag("ul", items, class_="cards")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first cell of a row is its name."""
    top = tag("tr", "".join(tag("th", escape(head), scope="col") for head in heads))
    body = ""
    for name, *values in rows:
        cells = "".join(tag("td", escape(value)) for value in values)
        body += tag("tr", tag("th", escape(name), scope="row") + cells)
    return tag("div", tag("table", tag("thead", top) + tag("tbody", body)), class_="scroll")


def facts(values: Mapping[str, Any]) -> str:
    """Names and values."""
    rows = "".join(
        tag("tr", tag("th", escape(k), scope="row") + tag("td", escape(v)))
        for k, v in values.items()
    )
    return tag("table", tag("tbody", rows), class_="facts")
