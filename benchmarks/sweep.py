"""Sweeps over learning rates: what is to be run next, several runs at a time, and a journal.

A run is a dict of settings, found again with its results as one line of the journal, so that a
sweep can be done in slices. The learning rate is swept with the first seed, on to the next value
while the best is at the grid's edge; the best is repeated with the other seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from phi_train.experiment.statistics import t_quantile

__all__ = [
    "SEEDS",
    "Journal",
    "add_options",
    "best_of",
    "finite_or_infinite",
    "interval",
    "next_runs",
    "work",
]

SEEDS = (0, 1, 2)
FURTHER = 3  # values beyond the grid at most, each twice or half the one at its edge

Run = dict[str, Any]


def add_options(parser: argparse.ArgumentParser, work: str) -> None:
    """What every sweep asks; work: the folder of its journal."""
    parser.add_argument("--data", help="text to train on")
    parser.add_argument("--valid", help="text to measure on")
    parser.add_argument("--work", default=work, help="the journal's folder")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, on a core each")
    parser.add_argument("--minutes", type=float, default=math.inf, help="no run is begun later")
    parser.add_argument("--report", action="store_true", help="print what is known so far")
    parser.add_argument("--write", action="store_true", help="put the report into RESULTS.md")


class Journal:
    """One line of JSON for each run that was made, and for each note; the last note counts.

    settings: the names that identify a run. A run's "loss" is None where it diverged.
    """

    def __init__(self, folder: Path, settings: Sequence[str]) -> None:
        self.folder, self._path, self._settings = folder, folder / "journal.jsonl", settings
        self.runs: dict[str, Run] = {}
        self.notes: dict[str, Any] = {}
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                self._take(json.loads(line))

    def _take(self, entry: Run) -> None:
        if self._settings[0] in entry:
            self.runs[self.key(entry)] = entry
        else:
            self.notes |= entry

    def key(self, entry: Run) -> str:
        """What identifies a run."""
        return json.dumps([entry[name] for name in self._settings])

    def add(self, entry: Run) -> None:
        """Appends it, on disk when this returns."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(entry)

    def matching(self, **settings: Any) -> list[Run]:
        """The runs that were made with all of these."""
        return [r for r in self.runs.values() if all(r[n] == v for n, v in settings.items())]

    def losses(self, **settings: Any) -> dict[float, float]:
        """learning rate -> loss of the first seed; infinite where the run diverged."""
        found = self.matching(seed=SEEDS[0], **settings)
        return {r["learning_rate"]: finite_or_infinite(r["loss"]) for r in found}

    def missing(self, wanted: Sequence[Run]) -> list[Run]:
        """Those that were not made yet."""
        return [entry for entry in wanted if self.key(entry) not in self.runs]


def finite_or_infinite(loss: float | None) -> float:
    """None, a run that diverged, as a number."""
    return math.inf if loss is None else loss


def best_of(losses: Mapping[float, float]) -> float:
    """The learning rate with the least loss."""
    return min(losses, key=lambda rate: losses[rate])


def next_runs(grid: Sequence[float], losses: Mapping[float, float]) -> list[tuple[float, int]]:
    """(learning rate, seed) to be run, given the losses of the first seed so far."""
    if missing := [rate for rate in grid if rate not in losses]:
        return [(rate, SEEDS[0]) for rate in missing]
    best = best_of(losses)
    beyond = {min(losses): min(losses) / 2, max(losses): max(losses) * 2}.get(best)
    if beyond and math.isfinite(losses[best]) and len(losses) < len(grid) + FURTHER:
        return [(beyond, SEEDS[0])]
    return [(best, seed) for seed in SEEDS]


def work(
    journal: Journal,
    todo: Callable[[], list[Run]],
    command: Callable[[Run], list[str]],
    *,
    jobs: int,
    minutes: float = math.inf,
) -> None:
    """Makes the runs that `todo` names, `jobs` at a time, until none is left or time is up.

    command: the arguments of Python for one run, which prints its entry as the last line.
    """
    end = time.monotonic() + minutes * 60
    running: dict[str, subprocess.Popen[str]] = {}
    while True:
        waiting = [entry for entry in todo() if journal.key(entry) not in running]
        if waiting and len(running) < jobs and time.monotonic() < end:
            running[journal.key(waiting[0])] = begin(command(waiting[0]))
            continue
        if not running:
            return
        name = next((name for name, process in running.items() if process.poll() is not None), None)
        if name is None:
            time.sleep(0.2)
            continue
        process = running.pop(name)
        output = process.communicate()[0]
        if process.returncode:
            raise SystemExit(f"the run {name} has failed")
        journal.add(json.loads(output.splitlines()[-1]))
        print(f"{name}: {journal.runs[name]['loss']}", file=sys.stderr, flush=True)


def begin(command: list[str]) -> subprocess.Popen[str]:
    """A run in a process of its own, on one thread."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True, env=environment
    )


def interval(losses: Sequence[float]) -> str:
    """Mean and half the width of its 95 % interval."""
    mean = statistics.mean(losses)
    if len(losses) < 2 or not math.isfinite(mean):
        return f"{mean:.3f}"
    half = t_quantile(0.025, len(losses) - 1) * statistics.stdev(losses) / len(losses) ** 0.5
    return f"{mean:.3f} ± {half:.3f}"
