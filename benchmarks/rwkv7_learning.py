#!/usr/bin/env python3
"""RWKV-7 beside the GPT on the same tokens: held-out loss at T = 128 and T = 1024.

    python benchmarks/rwkv7_learning.py --data train.txt --valid valid.txt --jobs 2
    python benchmarks/rwkv7_learning.py --report [--write]

gpt-1m and rwkv7-1m (1.18M and 1.08M parameters) by `phi-train run`'s own loop, each with its
learning rate swept with one seed and three seeds at the best: 2000 steps of 4 x 128
tokens, and as many tokens in 1000 steps of 1 x 1024. RWKV-7 a third way: 4 x 128 tokens in
sequence, its state carried from step to step, at the rate that was best without. Each final model
is measured in windows of 128 and of 1024 tokens, and RWKV-7 also as one text, its state carried
through. Every run is one line of a journal in --work: what is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
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

from phi_model import LanguageModel, ModelConfig, RWKV7State, load_checkpoint
from phi_train import PhiTrainError, TrainConfig, train
from phi_train.evaluate import evaluate
from phi_train.prepare import prepare as prepare_shards
from phi_train.shards import open_prepared
from phi_train.tokens import TokenStream

SETTINGS = ("preset", "batches", "batch_size", "seq_len", "steps", "learning_rate", "seed")
WINDOWS = (128, 1024)
SHORT = WINDOWS[0]
STREAM_PIECE = 512  # tokens of the one text at a time
GRID = (2e-3, 4e-3, 8e-3)  # peak learning rates: the first sweep
SWEPT = {("gpt-1m", 128): 4e-3}  # by benchmarks/optimizer_comparison.py, the same steps


@dataclass(frozen=True)
class Arm:
    """What is compared; the learning rate and the seed are still open."""

    preset: str
    batches: str
    batch_size: int
    seq_len: int
    steps: int

    def __str__(self) -> str:
        kind = "" if self.batches == "random" else ", state carried"
        return f"{self.preset}{kind} | {self.steps} x {self.batch_size} x {self.seq_len}"


ARMS = (
    Arm("gpt-1m", "random", 4, 128, 2000),
    Arm("rwkv7-1m", "random", 4, 128, 2000),
    Arm("rwkv7-1m", "streams", 4, 128, 2000),
    Arm("gpt-1m", "random", 1, 1024, 1000),
    Arm("rwkv7-1m", "random", 1, 1024, 1000),
)


def main() -> None:
    """One slice of the work, or the report."""
    options = arguments()
    folder = Path(options.work)
    if options.one:
        print(json.dumps(run(json.loads(options.one), folder)))
        return
    journal = Journal(folder, SETTINGS)
    if not options.report:
        if not (options.data and options.valid):
            raise SystemExit("name the text to train on with --data and to measure with --valid")
        prepare_shards(options.data, folder / "prepared", vocab_size=1024, valid=options.valid)
        work(
            journal,
            lambda: todo(journal, options),
            lambda entry: [__file__, "--one", json.dumps(entry), "--work", str(folder)],
            jobs=options.jobs,
            minutes=options.minutes,
        )
    text = report(journal, options)
    print(text)
    if options.write:
        write_section("rwkv7-learning", text)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser, "runs/rwkv7-learning")
    parser.add_argument("--scale", type=float, default=1, help="of the steps, for a quick try")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def settings(arm: Arm, options: argparse.Namespace) -> dict[str, Any]:
    """Of the arm's runs, learning rate and seed left open."""
    return asdict(arm) | {"steps": max(1, round(arm.steps * options.scale))}


def todo(journal: Journal, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The runs that can be made now: every arm's sweep, then its further seeds."""
    wanted = []
    for arm in ARMS:
        chosen = settings(arm, options)
        for rate, seed in runs_of(arm, journal, options):
            wanted.append(chosen | {"learning_rate": rate, "seed": seed})
    return journal.missing(wanted)


def runs_of(arm: Arm, journal: Journal, options: argparse.Namespace) -> list[tuple[float, int]]:
    """(learning rate, seed) of an arm, as far as is known. What was best at 4 x 128 tokens comes
    first at 1 x 1024, before the sweep there; a carried state has no sweep of its own.
    """
    if known := SWEPT.get((arm.preset, arm.seq_len)):
        return [(known, seed) for seed in SEEDS]
    own = next_runs(GRID, journal.losses(**settings(arm, options)))
    if arm.batches == "random" and arm.seq_len == SHORT:
        return own
    short = next(a for a in ARMS if (a.preset, a.seq_len) == (arm.preset, SHORT))
    first = runs_of(short, journal, options)
    if {seed for _, seed in first} != set(SEEDS):  # the sweep there is not finished
        return []
    return first if arm.seq_len == SHORT else [*first, *own]


# one run, in a process of its own


def run(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The entry with its losses in nats a token; "loss" is in windows as long as those it learnt
    from, None where the run diverged.
    """
    prepared = folder / "prepared"
    with tempfile.TemporaryDirectory() as out:
        config = TrainConfig(
            data=str(prepared),
            out=f"{out}/run",
            workers="1",
            eval_every=entry["steps"],
            sample_every=0,
            checkpoint_every=0,
            groups_every=0,
            baselines=False,
            **entry,
        )
        try:
            result = train(config)
        except PhiTrainError:
            return entry | {"loss": None}
        model = load_checkpoint(result.folder.last).build()
    valid = open_prepared(prepared).valid
    own = str(entry["seq_len"])
    losses = {own: result.evaluation.loss}
    losses |= {str(n): evaluate(model, valid, seq_len=n).loss for n in WINDOWS if str(n) != own}
    if model.config.kind == "rwkv7":
        losses["stream"] = loss_of_one_text(model, valid)
    return entry | {"loss": losses[own], "losses": losses}


def loss_of_one_text(model: LanguageModel, stream: TokenStream) -> float:
    """Nats a token when the state goes through the whole stream, emptied where a document begins:
    after the end token of the one before, as batches of kind "streams" have it.
    """
    state = RWKV7State.zeros(model.config)
    contexts, nats = stream.contexts, 0.0
    begins = np.r_[False, contexts[:-1] == stream.end_token][None]
    for start in range(0, stream.ids.size, STREAM_PIECE):
        part = slice(start, start + STREAM_PIECE)
        ids, targets = contexts[part][None], stream.ids[part][None]
        nats -= float(model.token_log_probs(ids, targets, state=state, reset=begins[:, part]).sum())
    return nats / stream.ids.size


# the table


def report(journal: Journal, options: argparse.Namespace) -> str:
    """The section of RESULTS.md."""
    counts = [
        f"{name} {ModelConfig.preset(name).n_parameters / 1e6:.2f}M"
        for name in ("gpt-1m", "rwkv7-1m")
    ]
    lines = [
        "## RWKV-7 beside the GPT: learning",
        "",
        "`python benchmarks/rwkv7_learning.py --data train.txt --valid valid.txt --jobs 2`: "
        "TinyStories, vocabulary 1024, `phi-train run`'s defaults but for what the table names; "
        f"parameters: {', '.join(counts)}. Nats a token on the whole validation text in windows "
        "of so many tokens, or as one text with the state carried (and emptied where a document "
        "begins); mean and 95 % interval (Student's t) over the seeds at the learning rate that "
        f"was best with seed {SEEDS[0]}, in windows as long as those of the training; the GPT's at "
        "128 as swept under Optimisers compared.",
        "",
        f"{machine()}.",
        "",
        "| model | training | learning rate | seeds | windows of 128 | of 1024 | as one text | "
        "sweep (seed 0) |",
        "|---|---|---|---|---|---|---|---|",
        *(row(arm, journal, options) for arm in ARMS),
    ]
    left = len(todo(journal, options))
    return "\n".join(
        [*lines, "", "All runs were made." if not left else f"Not finished: {left} runs are next."]
    )


def row(arm: Arm, journal: Journal, options: argparse.Namespace) -> str:
    """One line of the table."""
    sweep = journal.losses(**settings(arm, options))
    if not sweep:
        return f"| {arm} |" + " - |" * 6
    best = best_of(sweep)
    runs = journal.matching(**settings(arm, options), learning_rate=best)
    cells = [str(arm), f"{best:g}", str(len(runs))]
    for name in (*map(str, WINDOWS), "stream"):
        found = [finite_or_infinite(r.get("losses", {}).get(name)) for r in runs]
        cells.append(interval(found) if min(found) < math.inf else "-")
    cells.append(", ".join(f"{rate:g}: {sweep[rate]:.3f}" for rate in sorted(sweep)))
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
