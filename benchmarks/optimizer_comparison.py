#!/usr/bin/env python3
"""Trains gpt-1m with each optimiser and compares them at equal steps and by seconds.

    python benchmarks/optimizer_comparison.py --data train.txt --valid valid.txt --jobs 2
    python benchmarks/optimizer_comparison.py --report [--write]

The learning rate is swept with one seed, on to the next value while the best is at the grid's
edge; the best is repeated with two more seeds. Every run is one line of a journal in --work: what
is there is not run again, so the whole can be done in slices (--minutes). At the end the time of
a step is measured, all optimisers taking turns with nothing else running (--time does it anew).
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from optimizer_training import load, prepare, run, step_times
from report import machine, write_section
from sweep import (
    SEEDS,
    Journal,
    add_options,
    best_of,
    finite_or_infinite,
    interval,
    next_runs,
    work,
)

from phi_optim import OPTIMIZERS

GRIDS = {  # peak learning rates: the first sweep
    "adamw": (1e-3, 2e-3, 4e-3, 8e-3),
    "lion": (1e-4, 2e-4, 4e-4, 8e-4),
    "schedule-free": (2e-3, 4e-3, 8e-3, 1.6e-2),
    "muon": (2e-3, 4e-3, 8e-3, 1.6e-2),
    "sgd": (0.05, 0.1, 0.2, 0.4),
}
SETTINGS = ("optimizer", "learning_rate", "steps", "seed")
LEVELS = ("bigram", "trigram")

Run = dict[str, Any]


def main() -> None:
    """One slice of the work, or the report."""
    options = arguments()
    folder = Path(options.work)
    if options.one:
        print(json.dumps(run(json.loads(options.one), folder)))
        return
    if not options.report:
        if not (options.data and options.valid):
            raise SystemExit("name the text to train on with --data and to measure with --valid")
        prepare(options.data, options.valid, folder)
        journal = Journal(folder, SETTINGS)
        if not options.time:
            make_runs(journal, options)
        if options.time or ("times" not in journal.notes and not todo(journal, options)):
            rates = {name: GRIDS[name][1] for name in options.optimizers}
            journal.add({"times": step_times(rates, folder, options.rounds)})
    journal = Journal(folder, SETTINGS)
    text = report(journal, options)
    print(text)
    if options.write:
        write_section("optimizer-comparison", text)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser, "runs/optimizer-comparison")
    parser.add_argument("--steps", type=numbers, default=(500, 2000), help="such as 500,2000")
    parser.add_argument("--optimizers", type=names, default=OPTIMIZERS, help="separated by commas")
    parser.add_argument("--rounds", type=int, default=30, help="of the measurement of a step")
    parser.add_argument("--time", action="store_true", help="measure the steps, train nothing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def numbers(text: str) -> tuple[int, ...]:
    """500,2000 as numbers."""
    return tuple(int(part) for part in text.split(","))


def names(text: str) -> tuple[str, ...]:
    """adamw,lion as names."""
    chosen = tuple(text.split(","))
    if odd := set(chosen) - set(OPTIMIZERS):
        raise argparse.ArgumentTypeError(f"{odd.pop()} is none of {', '.join(OPTIMIZERS)}")
    return chosen


def todo(journal: Journal, options: argparse.Namespace) -> list[Run]:
    """The runs that can be made now: the sweep of each optimiser, then its further seeds."""
    wanted = [
        {"optimizer": name, "learning_rate": rate, "steps": steps, "seed": seed}
        for steps in options.steps
        for name in options.optimizers
        for rate, seed in next_runs(GRIDS[name], journal.losses(optimizer=name, steps=steps))
    ]
    return journal.missing(wanted)


def make_runs(journal: Journal, options: argparse.Namespace) -> None:
    """Makes those runs, each in a process of its own."""
    work(
        journal,
        lambda: todo(journal, options),
        lambda entry: [__file__, "--one", json.dumps(entry), "--work", str(journal.folder)],
        jobs=options.jobs,
        minutes=options.minutes,
    )


def report(journal: Journal, options: argparse.Namespace) -> str:
    """The section of RESULTS.md."""
    levels = load(journal.folder)[2]
    whole = ", ".join(f"{name} {levels['whole'][name]:.3f}" for name in ("unigram", *LEVELS))
    on_slice = ", ".join(f"{name} {levels['slice'][name]:.3f}" for name in LEVELS)
    lines = [
        "## Optimisers compared",
        "",
        "`python benchmarks/optimizer_comparison.py --data train.txt --valid valid.txt --jobs 2`: "
        "gpt-1m on TinyStories, 4 x 128 tokens a step, vocabulary 1024; nats a token on the whole "
        "validation text, mean and 95 % interval (Student's t) over the seeds; the learning rate "
        f"swept with seed {SEEDS[0]}, the schedule the one that each is meant for. Held-out "
        f"n-grams: {whole}. A level is reached at the first look (every 25 of 500 steps, "
        "every 50 of 2000) at which the loss on the first 16,384 tokens is below the n-gram's "
        f"there ({on_slice}); "
        "seconds are steps times the median time of a step on two workers, all optimisers in "
        "turns.",
        "",
        f"{machine()}.",
    ]
    for steps in options.steps:
        lines += ["", f"### {steps} steps", ""]
        lines += [
            "| optimiser | learning rate | loss | seeds | ms a step | seconds in all | steps to "
            "bigram | seconds | steps to trigram | seconds | sweep (seed 0) |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [row(name, steps, journal, levels["slice"]) for name in options.optimizers]
    left = len(todo(journal, options))
    lines += ["", "All runs were made." if not left else f"Not finished: {left} runs are next."]
    return "\n".join(lines)


def row(name: str, steps: int, journal: Journal, levels: dict[str, float]) -> str:
    """One line of the table."""
    sweep = journal.losses(optimizer=name, steps=steps)
    if not sweep:
        return f"| {name} |" + " - |" * 10
    best = best_of(sweep)
    runs = journal.matching(optimizer=name, steps=steps, learning_rate=best)
    losses = [finite_or_infinite(r["loss"]) for r in runs]
    seconds = journal.notes.get("times", {}).get(name)
    cells = [name, f"{best:g}", interval(losses), str(len(losses))]
    cells += [f"{seconds * 1e3:.1f}", f"{seconds * steps:.1f}"] if seconds else ["-", "-"]
    for level in LEVELS:
        crossed = [step for r in runs if (step := crossing(r, levels[level]))]
        if len(crossed) < len(runs):
            cells += [f"{len(crossed)} of {len(runs)} seeds", "-"]
        else:
            cells.append(f"{statistics.mean(crossed):.0f}")
            cells.append(f"{statistics.mean(crossed) * seconds:.1f}" if seconds else "-")
    cells.append(", ".join(f"{rate:g}: {sweep[rate]:.3f}" for rate in sorted(sweep)))
    return "| " + " | ".join(cells) + " |"


def crossing(entry: Run, level: float) -> int | None:
    """The first step that was looked at with a loss below `level`."""
    return next((step for step, loss in entry["curve"] if loss < level), None)


if __name__ == "__main__":
    main()
