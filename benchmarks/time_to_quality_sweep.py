"""Each side's best recipe for benchmarks/time_to_quality.py.

With the same first weights, batches and updates, both sides need the same number of steps to the
level, to rounding: so steps are counted once for each recipe, by our loop on one thread, several
runs at a time; then each side's time of a step is measured for each optimiser and batch size, and
its best recipe is the one with the least steps x time.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweep import Journal, work

__all__ = ["sweep"]

Recipe = dict[str, Any]

SETTINGS = ("optimizer", "learning_rate", "batch_size", "steps")
GRID = (  # optimiser, learning rate, rows of a batch, steps of the schedule
    ("schedule-free", 4e-3, 4, (6000,)),
    ("muon", 4e-3, 4, (3000, 2600)),
    ("schedule-free", 4e-3, 2, (9000,)),
    ("adamw", 2e-3, 4, (3500,)),
    ("schedule-free", 4e-3, 8, (3000,)),
)  # the rates: the best of benchmarks/optimizer_comparison.py at 2,000 steps of 4 rows
SIDES = {"ours": "ours", "torch": "torch.compile"}
TIMED = 100  # steps
EVAL_EVERY = 100  # steps, while steps are counted


def recipes() -> list[Recipe]:
    """The grid. A constant rate needs no horizon: the run ends at the level."""
    return [
        dict(zip(SETTINGS, (optimizer, rate, batch, steps), strict=True))
        for optimizer, rate, batch, horizons in GRID
        for steps in horizons
    ]


def next_recipes(journal: Journal) -> list[Recipe]:
    """Those still to be run: of each optimiser, batch and rate the longest horizon first, and a
    shorter one only if the level was reached in the longer.
    """
    wanted = []
    for recipe in recipes():
        longer = [
            r for r in recipes() if same_but_steps(r, recipe) and r["steps"] > recipe["steps"]
        ]
        made = [journal.runs.get(journal.key(r)) for r in longer]
        if all(run is not None and run["reached"] for run in made):
            wanted.append(recipe)
    return journal.missing(wanted)


def same_but_steps(one: Recipe, other: Recipe) -> bool:
    """Whether only the horizon differs."""
    return all(one[name] == other[name] for name in SETTINGS[:-1])


def sweep(
    options: argparse.Namespace,
    command: Callable[..., list[str]],
    measure: Callable[[str, Recipe], dict[str, Any]],
    best: Path,
) -> None:
    """Counts steps, measures the time of a step and keeps each side's best recipe in `best`."""
    folder = Path(options.work)
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder, SETTINGS)
    work(
        journal,
        lambda: next_recipes(journal),
        lambda recipe: command("ours", recipe, workers=1, eval_every=EVAL_EVERY),
        jobs=options.jobs,
        minutes=options.minutes,
    )
    if next_recipes(journal):
        print("time is up: the same command goes on")
        return
    reached = [run for run in journal.runs.values() if run["reached"]]
    if not reached:
        raise SystemExit("no recipe reached the level")
    for run in reached:
        for side, peer in SIDES.items():
            if (cost := cost_of(side, run)) not in journal.notes:
                few = {name: run[name] for name in SETTINGS} | {"steps": TIMED}
                journal.add({cost: measure(peer, few)["ms"]})
                print(f"{cost}: {journal.notes[cost]:.1f} ms", file=sys.stderr, flush=True)
    stored = {side: choice(side, reached, journal) for side in SIDES}
    best.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    print(best.read_text(encoding="utf-8"))


def cost_of(side: str, run: Recipe) -> str:
    """What the time of a step depends on, as a note's name."""
    return f"{side}, {run['optimizer']}, {run['batch_size']} rows"


def choice(side: str, reached: list[Recipe], journal: Journal) -> dict[str, Any]:
    """The recipe that reaches the level first, and why it was taken."""
    seconds = [run["reached"] * journal.notes[cost_of(side, run)] / 1e3 for run in reached]
    least = min(seconds)
    run = reached[seconds.index(least)]
    why = (
        f"{run['reached']} steps of {journal.notes[cost_of(side, run)]:.1f} ms, {least:.1f} s, the "
        f"least of {len(journal.runs)} recipes, {len(reached)} of which reached the level"
    )
    return {"recipe": {name: run[name] for name in SETTINGS}, "why": why}
