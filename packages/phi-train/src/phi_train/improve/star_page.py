"""The report of a STaR experiment: one HTML file, from its folder alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phi_train.improve.example_log import Example, ExampleLog
from phi_train.improve.web_page import (
    cards,
    facts,
    figures,
    over_iterations,
    read_results,
    table,
    write,
)
from phi_train.report.chart import Chart, Level, Series, draw
from phi_train.report.curve import Curve
from phi_train.report.text import escape, tag

__all__ = ["write_star_page"]

SHOWN = 4  # tasks of each sort
NAMES = {"direct": "no rationale", "few": "the given rationales alone, as many steps"}
UNIT = "share of the test tasks answered right"


def write_star_page(folder: str | os.PathLike[str]) -> Path:
    """Writes report.html into a finished experiment's folder; returns its path."""
    place = Path(folder)
    config, results = read_results(place)
    log = ExampleLog(place / "examples.jsonl")
    best, measured = results["best"], results["measured"]
    gain = results["over_base"][best]
    body = tag("h1", f"STaR: {escape(config['preset'])}, seed {config['seed']}")
    body += tag("p", escape(_verdict(results)))
    body += cards(
        {
            "the base, test tasks": f"{measured['base']['accuracy']:.1%}",
            f"{best}, test tasks": f"{measured[best]['accuracy']:.1%}",
            "difference, points": f"{100 * gain['mean']:+.1f}",
            "95 % interval": f"{100 * gain['low']:+.1f} to {100 * gain['high']:+.1f}",
            "right with a true rationale": f"{measured[best]['sound']:.1%}",
        }
    )
    body += figures(_accuracy_chart(config, measured) + _difficulty_chart(best, measured))
    body += tag("h2", "All that was compared") + _arms(results)
    body += tag("h2", "What was generated to learn from") + _samples(results)
    body += tag("h2", "Before and after") + _stories(log, best)
    body += tag("h2", "Settings") + facts(config)
    return write(place, f"STaR {place.name}", body)


def _verdict(results: dict[str, Any]) -> str:
    best = results["best"]
    gain = results["over_base"][best]
    said = "raised" if gain["low"] > 0 else "lowered" if gain["high"] < 0 else "did not change"
    clear = "" if gain["low"] > 0 or gain["high"] < 0 else " beyond chance"
    return (
        f"Training on its own right rationales {said} the model's accuracy{clear}. {best} did "
        f"best on the development tasks; the difference is on {gain['pairs']} test tasks, each "
        f"answered by both, its interval by a paired bootstrap."
    )


def _accuracy_chart(config: dict[str, Any], measured: dict[str, Any]) -> str:
    series = []
    for colour, arm in enumerate(("star", "unverified")):
        names = ["base", *(f"{arm}-{i}" for i in range(1, config["iterations"] + 1))]
        points = [(i, measured[n]["accuracy"]) for i, n in enumerate(names) if n in measured]
        if len(points) > 1:
            label = "STaR" if arm == "star" else "fine-tuned on unverified samples"
            series.append(Series(label, Curve.of(points), colour, "dots"))
    others = [n for n in measured if n in NAMES or n.startswith("majority")]
    levels = [Level(NAMES.get(n, n), measured[n]["accuracy"], 2 + i) for i, n in enumerate(others)]
    return over_iterations(Chart("accuracy", "Accuracy", UNIT, series, levels, zero=True))


def _difficulty_chart(best: str, measured: dict[str, Any]) -> str:
    series = [
        Series(
            name,
            Curve.of((float(k), v) for k, v in measured[name]["by_events"].items()),
            colour,
            "dots",
        )
        for colour, name in enumerate(n for n in ("base", best, "direct") if n in measured)
    ]
    chart = draw(Chart("difficulty", "Accuracy by difficulty", UNIT, series, zero=True))
    return over_iterations(chart, of="number of events")


def _arms(results: dict[str, Any]) -> str:
    rows = []
    for name, values in results["measured"].items():
        gain = results["over_base"].get(name)
        rows.append(
            [
                NAMES.get(name, name),
                f"{values['accuracy']:.1%}",
                f"{values['development']:.1%}" if "development" in values else "",
                f"{100 * gain['mean']:+.1f} ({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"
                if gain
                else "",
                "" if name == "direct" else f"{values['sound']:.1%}",
                *(f"{share:.0%}" for share in values["by_kind"].values()),
            ]
        )
    kinds = list(results["measured"]["base"]["by_kind"])
    heads = ["", "test", "development", "over the base, points", "true rationales", *kinds]
    return table(heads, rows)


def _samples(results: dict[str, Any]) -> str:
    rows = [
        [f"{name}, {how}", *(f"{n:,}" for n in (t["made"], t["right"], t["sound"], t["kept"]))]
        for name, tallies in results["samples"].items()
        for how, t in tallies.items()
    ]
    return table(["", "made", "right", "of these with a true rationale", "kept"], rows)


def _stories(log: ExampleLog, best: str) -> str:
    before, after = log.of("test of base/"), log.of(f"test of {best}/")
    sorts = (
        ("Wrong before, right after", False, True),
        ("Right before, wrong after", True, False),
        ("Wrong before and after", False, False),
    )
    found = ""
    for title, was, now in sorts:
        pairs = [
            (a, b)
            for a, b in zip(before, after, strict=True)
            if (a["right"], b["right"]) == (was, now)
        ]
        found += tag("h3", f"{title}: {len(pairs):,} of {len(before):,}")
        found += "".join(_story(pair) for pair in pairs[:SHOWN])
    return found


def _story(pair: Sequence[Example]) -> str:
    a, b = pair
    text = f"{a['story']}\nQuestion: {a['question']}\n(true: {a['truth']})"
    text += f"\n\nbefore: {a['completion'].strip()}\n\nafter: {b['completion'].strip()}"
    return tag("div", tag("pre", escape(text)), class_="sample")
