#!/usr/bin/env python3
"""Puts the best learning rate of each size, from scaling-rates.toml's journal, into the pages of
scaling: TinyStories' and the grammar's. A size that was not measured keeps its rate.

    python experiments/write_rates.py [--experiments experiments]

A trial that ran with another rate before is then another trial: its page asks for it anew.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from phi_model.files import atomic_write
from phi_train.experiment import read_experiment, results_of

__all__ = ["best_rates", "with_rates"]

PAGES = ("scaling-text", "scaling-epochs", "scaling-corners", "scaling-grammar")


def main() -> None:
    """Reads the journal, writes the pages, says what changed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=Path, default=Path("experiments"))
    folder = parser.parse_args().experiments
    rates, at_the_end = best_rates(folder / "scaling-rates.toml")
    print(", ".join(f"{size}: {rate:g}" for size, rate in rates.items()) or "nothing measured yet")
    for size in at_the_end:
        print(f"{size}: the best is at the end of the range: widen it in scaling-rates.toml")
    for name in PAGES:
        path = folder / f"{name}.toml"
        before = path.read_text(encoding="utf-8")
        after = with_rates(before, rates)
        if after != before:
            with atomic_write(path) as file:
                file.write(after.encode())
            print(f"{path} has changed")


def best_rates(page: Path) -> tuple[dict[str, float], list[str]]:
    """size -> the rate of least loss, of the sizes with each of their rates measured; the sizes
    whose best is their smallest or largest rate.
    """
    experiment = read_experiment(page)
    losses: dict[str, dict[float, float]] = {}
    for result in results_of(experiment):
        if experiment.metric in result.outcome.metrics or result.outcome.state == "diverged":
            size, rate = size_of(result.trial.arm), result.trial.config["learning_rate"]
            loss = result.outcome.metrics.get(experiment.metric, float("inf"))
            losses.setdefault(size, {})[rate] = loss
    wanted: dict[str, set[float]] = {}
    for arm in experiment.arms:
        wanted.setdefault(size_of(arm.name), set()).add(arm.config["learning_rate"])
    complete = {size: found for size, found in losses.items() if set(found) >= wanted[size]}
    best = {size: min(found, key=lambda rate: found[rate]) for size, found in complete.items()}
    ends = [size for size, rate in best.items() if rate in (min(wanted[size]), max(wanted[size]))]
    return best, ends


def size_of(arm: str) -> str:
    """What the arm's name begins with."""
    return arm.split(",", maxsplit=1)[0]


def with_rates(text: str, rates: dict[str, float]) -> str:
    """A page with the rates of its arms replaced; all else stays as it is."""
    parts = re.split(r"(?m)^(?=\[)", text)
    for i, part in enumerate(parts):
        name = re.match(r'\[arms\."([^"]+)"\]', part)
        if name and name[1] in rates:
            rate = f"learning_rate = {rates[name[1]]:g}"
            parts[i] = re.sub(r"(?m)^learning_rate = \S+$", rate, part)
    return "".join(parts)


if __name__ == "__main__":
    main()
