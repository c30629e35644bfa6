"""The report of a SPIN experiment: one HTML file, from its folder alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from phi_train.improve.example_log import ExampleLog
from phi_train.improve.web_page import (
    cards,
    facts,
    figures,
    over_iterations,
    read_results,
    table,
    write,
)
from phi_train.report.chart import Chart, Level, Series
from phi_train.report.curve import Curve
from phi_train.report.text import escape, tag

__all__ = ["write_spin_page"]

SHOWN = 5  # prompts


def write_spin_page(folder: str | os.PathLike[str]) -> Path:
    """Writes report.html into a finished experiment's folder; returns its path."""
    place = Path(folder)
    config, results = read_results(place)
    log = ExampleLog(place / "examples.jsonl")
    measured = results["measured"]
    names = list(measured)
    first, last = measured[names[0]], measured[names[-1]]
    body = tag("h1", f"SPIN: {escape(config['checkpoint'])}, seed {config['seed']}")
    body += cards(
        {
            "bits a byte, before": f"{first['bits_per_byte']:.4f}",
            "bits a byte, after": f"{last['bits_per_byte']:.4f}",
            "told from real text, before": f"{first['classifier']:.1%}",
            "told from real text, after": f"{last['classifier']:.1%}",
            "real preferred, last iteration": f"{last['preference']:.1%}",
        }
    )
    body += figures(_charts(measured))
    body += tag("h2", "All that was measured") + _table(measured)
    body += tag("h2", "Before and after") + _texts(log, names[-1])
    body += tag("h2", "Settings") + facts(config)
    return write(place, f"SPIN {place.name}", body)


def _charts(measured: dict[str, Any]) -> str:
    rows = list(measured.values())

    def curve(*keys: str) -> Curve:
        points = []
        for i, row in enumerate(rows):
            value: Any = row
            for key in keys:
                value = value[key]
            if value is not None:
                points.append((i, value))
        return Curve.of(points)

    names = {1: "single tokens", 2: "pairs", 3: "triples"}
    charts = [
        Chart("bits", "Held-out text", "bits a byte",
              [Series("the model", curve("bits_per_byte"), 0, "dots")]),
        Chart("preference", "Real text against its own", "share of held-out pairs",
              [Series("told apart by a classifier", curve("classifier"), 0, "dots"),
               Series("real raised over own", curve("preference"), 1, "dots")],
              [Level("guessing", 0.5)]),
        Chart("divergence", "Distance of the generated text", "Jensen-Shannon, bits",
              [Series(names[n], curve("divergence", str(n)), n, "dots") for n in names], zero=True),
        Chart("diversity", "Diversity", "different over all",
              [Series(f"generated, {names[n]}", curve("distinct", str(n)), n, "dots")
               for n in names],
              [Level(f"real, {names[n]}", rows[0]["distinct_real"][str(n)], n) for n in names],
              zero=True),
        Chart("repetition", "Repetition", "4-grams that the text has had before",
              [Series("generated", curve("repetition"), 0, "dots")],
              [Level("real", rows[0]["repetition_real"])], zero=True),
    ]  # fmt: skip
    return "".join(over_iterations(chart) for chart in charts)


def _table(measured: dict[str, Any]) -> str:
    rows = [
        [
            name,
            f"{m['bits_per_byte']:.4f}",
            "" if m["preference"] is None else f"{m['preference']:.1%}",
            f"{m['classifier']:.1%}",
            *(f"{m['divergence'][n]:.4f}" for n in "123"),
            *(f"{m['distinct'][n]:.3f}" for n in "123"),
            f"{m['repetition']:.3f}",
        ]
        for name, m in measured.items()
    ]
    first = next(iter(measured.values()))
    real = ["real text", "", "", "", "", "", ""]
    real += [
        *(f"{first['distinct_real'][n]:.3f}" for n in "123"),
        f"{first['repetition_real']:.3f}",
    ]
    heads = ["", "bits a byte", "real preferred", "told apart"]
    heads += [f"divergence {n}" for n in "123"] + [f"distinct {n}" for n in "123"] + ["repetition"]
    return table(heads, [*rows, real])


def _texts(log: ExampleLog, last: str) -> str:
    before, after = log.of("held out of base/"), log.of(f"held out of {last}/")
    found = ""
    for a, b in list(zip(before, after, strict=True))[:SHOWN]:
        text = f"{a['prompt']} ..\n\nreal:{a['real']}\n\nbefore:{a['own']}\n\nafter:{b['own']}"
        found += tag("div", tag("pre", escape(text)), class_="sample")
    return found
