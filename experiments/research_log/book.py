"""What the journals hold, by experiment and arm; and how a figure with its spread is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from phi_train.experiment import (
    Experiment,
    Outcome,
    find_experiments,
    paired_difference,
    results_of,
)

__all__ = ["Book", "difference", "spread", "table"]


class Book:
    """Every experiment of a folder with its finished trials."""

    def __init__(self, folder: Path) -> None:
        self.experiments = {e.id: e for e in find_experiments(folder)}
        self._found: dict[str, dict[tuple[str, int], Outcome]] = {
            name: {(r.trial.arm, r.trial.seed): r.outcome for r in results_of(experiment)}
            for name, experiment in self.experiments.items()
        }

    def __getitem__(self, name: str) -> Experiment:
        return self.experiments[name]

    def outcomes(self, name: str, arm: str) -> dict[int, Outcome]:
        """seed -> outcome of one arm, finished or not."""
        return {seed: o for (a, seed), o in self._found.get(name, {}).items() if a == arm}

    def values(self, name: str, arm: str, metric: str = "loss") -> dict[int, float]:
        """seed -> the figure, of the finished trials that have it."""
        found = self.outcomes(name, arm).items()
        return {seed: o.metrics[metric] for seed, o in found if metric in o.metrics}

    def mean(self, name: str, arm: str, metric: str = "loss") -> float | None:
        """Over the seeds at hand; None without any."""
        found = list(self.values(name, arm, metric).values())
        return math.fsum(found) / len(found) if found else None

    def is_begun(self, name: str) -> bool:
        return bool(self._found.get(name))

    def state(self, name: str) -> str:
        """A sentence: how much of an experiment is done, and the command that goes on with it."""
        if name not in self.experiments:
            return f"There is no experiment `{name}`."
        experiment = self.experiments[name]
        wanted = len(experiment.arms) * len(experiment.seeds)
        have = len(self._found[name])
        page = f"[{name}](../experiments/{name}.toml)"
        if have == wanted:
            return f"{page}: all {wanted} trials."
        command = f"`phi-train experiment run {name} --workers 2`"
        if have == 0:
            return f"{page}: **not run yet**; {command} runs it."
        return f"{page}: {have} of {wanted} trials; {command} goes on."


def spread(values: Mapping[int, float], digits: int = 3) -> str:
    """Mean and standard deviation over the seeds, and their number."""
    if not values:
        return "-"
    found = list(values.values())
    mean = math.fsum(found) / len(found)
    if len(found) == 1:
        return f"{mean:.{digits}f} (1 seed)"
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in found) / (len(found) - 1))
    return f"{mean:.{digits}f} ± {deviation:.{digits}f} ({len(found)} seeds)"


def difference(
    book: Book, name: str, arm: str, baseline: str, metric: str = "loss", *, of: int = 1
) -> tuple[str, float, float]:
    """(in words, low, high) of the paired difference; `of` comparisons share the 5 %."""
    ours, theirs = book.values(name, arm, metric), book.values(name, baseline, metric)
    seeds = sorted(ours.keys() & theirs.keys())
    if len(seeds) < 2:
        return "-", -math.inf, math.inf
    d = paired_difference([ours[s] for s in seeds], [theirs[s] for s in seeds], level=0.05 / of)
    return f"{d.mean:+.3f} ({d.low:+.3f} to {d.high:+.3f})", d.low, d.high


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown, with an empty line before and after."""
    lines = [head, ["---"] * len(head), *rows]
    return ["", *("| " + " | ".join(row) + " |" for row in lines), ""]
