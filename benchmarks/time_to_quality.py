#!/usr/bin/env python3
"""Seconds of training until a model predicts held-out text as well as counted trigrams do.

    pip install torch schedulefree threadpoolctl
    python benchmarks/time_to_quality.py --data train.txt --valid valid.txt --sweep --jobs 2
    python benchmarks/time_to_quality.py --data train.txt --valid valid.txt [--rounds 3] [--write]

gpt-1m by `phi-train run`'s own loop with two workers, beside a nanoGPT-style loop in PyTorch on two
threads, eager and compiled: the same tokens, batches and first weights. Two rows: one recipe for
all, and each side's best, which --sweep finds and keeps in time_to_quality_best.json (see
time_to_quality_sweep.py). Every run has a process of its own and ends at the level; compiling and
evaluation are outside the clock. Exits 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import functools
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from report import machine, write_section
from time_to_quality_sweep import sweep

BEST = Path(__file__).with_name("time_to_quality_best.json")
SAME = {"optimizer": "adamw", "learning_rate": 2e-3, "batch_size": 4, "steps": 3500}
BARS = {"same recipe": 0.55, "best recipes": 0.5}
PEERS = {"ours": "ours", "torch eager": "torch", "torch.compile": "torch"}  # and their side
NEVER = float("inf")


def main() -> None:
    """Measures, prints the table, judges it."""
    options = arguments()
    if options.peer:
        told = run_peer(options)
        print(json.dumps(json.loads(options.recipe) | judged(told, options.level)))
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(options, Path(folder))
        if options.sweep:
            ways = (functools.partial(way, options) for way in (command, measure))
            sweep(options, *ways, BEST)
            return
        rows = [("same recipe", dict.fromkeys(("ours", "torch"), SAME))]
        best = stored_best()
        rows.append(("best recipes", {side: best[side]["recipe"] for side in ("ours", "torch")}))
        results = [(name, recipes, compare(options, recipes)) for name, recipes in rows]
    text, missed = report(options, results, best)
    print(text)
    if options.write:
        write_section("time-to-quality", text)
    sys.exit(1 if missed else 0)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="training text", required="--peer" not in sys.argv)
    parser.add_argument("--valid", help="held-out text", required="--peer" not in sys.argv)
    parser.add_argument("--preset", default="gpt-1m")
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3, help="seeds; figures are their medians")
    parser.add_argument("--eval-every", type=int, default=40, help="steps")
    parser.add_argument("--eval-tokens", type=int, default=16_384)
    parser.add_argument("--steps", type=int, help="of the same recipe, for a quick try")
    parser.add_argument("--write", action="store_true", help="keep the result")
    parser.add_argument("--sweep", action="store_true", help="find each side's best recipe")
    parser.add_argument("--work", default="runs/time-to-quality", help="the sweep's journal")
    parser.add_argument("--jobs", type=int, default=1, help="runs of the sweep at a time")
    parser.add_argument("--minutes", type=float, default=NEVER, help="begin no run after that")
    parser.add_argument("--peer", choices=[*PEERS], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--recipe", help=argparse.SUPPRESS)
    parser.add_argument("--level", type=float, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--workers", default="2", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps:
        SAME["steps"] = options.steps
    return options


# one peer, in a process of its own


def run_peer(options: argparse.Namespace) -> dict[str, Any]:
    """Trains to the level or to its schedule's end; (step, seconds, loss) of every evaluation."""
    from phi_train import TrainConfig  # noqa: PLC0415
    from phi_train.shards import open_prepared  # noqa: PLC0415

    prepared = Path(options.folder) / "prepared"
    config = TrainConfig(
        data=str(prepared),
        preset=options.preset,
        seq_len=options.seq_len,
        eval_every=options.eval_every,
        eval_tokens=options.eval_tokens,
        workers=options.workers,
        sample_every=0,
        checkpoint_every=0,
        baselines=False,
        **json.loads(options.recipe),
    )
    if options.peer == "ours":
        return train_ours(config, options.level)
    from time_to_quality_torch import train_torch  # noqa: PLC0415

    compiled = options.peer == "torch.compile"
    return train_torch(config, open_prepared(prepared), level=options.level, compiled=compiled)


def train_ours(config: Any, level: float) -> dict[str, Any]:
    """phi_train.train, watched: the clock runs from its start to each step, looks left out; at the
    level it gets the Ctrl-C that ends a run after its step.
    """
    from phi_train import train  # noqa: PLC0415
    from phi_train.progress import Quiet  # noqa: PLC0415

    class Watch(Quiet):
        def start(self, **_options: object) -> None:
            self.began, self.left_out, self.clock = time.perf_counter(), 0.0, {}

        def step(self, step: int, **_options: object) -> None:
            self.clock[step] = time.perf_counter() - self.began - self.left_out

        def spent(self, part: str, seconds: float) -> None:
            self.left_out += seconds
            if part != "evaluation":
                return
            lines = metrics.read_text(encoding="utf-8").splitlines()
            if json.loads(lines[-1]).get("valid_loss", NEVER) <= level:
                signal.raise_signal(signal.SIGINT)

    watch = Watch()
    with tempfile.TemporaryDirectory() as out:
        metrics = Path(out) / "run" / "metrics.jsonl"
        train(replace(config, out=f"{out}/run"), progress=watch)
        lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    looks = [
        (line["step"], watch.clock[line["step"]], line["valid_loss"])
        for line in lines
        if "valid_loss" in line
    ]
    return {"looks": looks, "seconds": looks[-1][1]}


# all of them


def prepare(options: argparse.Namespace, folder: Path) -> None:
    """Tokens, and the loss of trigrams on the targets that every evaluation uses."""
    from phi_train.ngram import KneserNey  # noqa: PLC0415
    from phi_train.prepare import prepare as prepare_shards  # noqa: PLC0415
    from phi_train.shards import open_prepared  # noqa: PLC0415

    prepare_shards(options.data, folder / "prepared", vocab_size=1024, valid=options.valid)
    data = open_prepared(folder / "prepared")
    whole_windows = min(options.eval_tokens, data.valid.ids.size) // options.seq_len
    options.eval_tokens = whole_windows * options.seq_len
    slice_ = replace(data.valid, ids=data.valid.ids[: options.eval_tokens])
    counted = KneserNey(data.train, vocab_size=data.tokenizer.n_vocab, order=3)
    import numpy as np  # noqa: PLC0415

    options.folder = str(folder)
    options.level = float(-np.log(counted.probabilities(slice_, 3)).mean())
    print(f"trigrams: {options.level:.4f} nats a token on {slice_.ids.size:,} held-out tokens")


def command(
    options: argparse.Namespace,
    peer: str,
    recipe: dict[str, Any],
    *,
    workers: int = 2,
    eval_every: int = 0,
) -> list[str]:
    """The arguments of Python for one peer's run."""
    return [
        *(__file__, "--peer", peer, "--folder", options.folder, "--preset", options.preset),
        *("--seq-len", str(options.seq_len), "--eval-every", str(eval_every or options.eval_every)),
        *("--eval-tokens", str(options.eval_tokens), "--level", repr(options.level)),
        *("--workers", str(workers), "--recipe", json.dumps(recipe)),
    ]


def judged(told: dict[str, Any], level: float) -> dict[str, Any]:
    """Seconds and steps to the level (None when it was not reached), the last loss, ms a step."""
    reached = next((look for look in told["looks"] if look[2] <= level), None)
    return {
        "seconds": reached[1] if reached else None,
        "reached": reached[0] if reached else None,
        "loss": told["looks"][-1][2],
        "ms": 1e3 * told["seconds"] / told["looks"][-1][0],
    }


def measure(options: argparse.Namespace, peer: str, recipe: dict[str, Any]) -> dict[str, Any]:
    """What judged() says of one peer's run, in a process of its own."""
    arguments = [sys.executable, *command(options, peer, recipe)]
    said = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def compare(
    options: argparse.Namespace, recipes: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Each peer's median over seeds, the peers taking turns."""
    runs: dict[str, list[dict[str, Any]]] = {peer: [] for peer in PEERS}
    for seed in range(options.rounds):
        for peer, side in PEERS.items():
            runs[peer].append(measure(options, peer, recipes[side] | {"seed": seed}))
            print(f"{peer}, seed {seed}: {runs[peer][-1]}", flush=True)
    return {peer: middle(found) for peer, found in runs.items()}


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The medians; steps are None where half of the runs never got there."""
    seconds = statistics.median(run["seconds"] or NEVER for run in runs)
    steps = statistics.median(run["reached"] or NEVER for run in runs)
    return {
        "seconds": seconds,
        "steps": None if steps == NEVER else steps,
        "loss": statistics.median(run["loss"] for run in runs),
        "ms": statistics.median(run["ms"] for run in runs),
    }


def stored_best() -> dict[str, Any]:
    """What the sweeps found; the same recipe for a side that was not swept."""
    unswept = {"recipe": SAME, "why": "not swept"}
    found = json.loads(BEST.read_text(encoding="utf-8")) if BEST.exists() else {}
    return {"ours": unswept, "torch": unswept, **found}


def report(
    options: argparse.Namespace, results: list[tuple], best: dict[str, Any]
) -> tuple[str, list[str]]:
    """The section of RESULTS.md, and what missed its bar."""
    lines = [
        "## Time to quality",
        "",
        f"`python benchmarks/time_to_quality.py --data train.txt --valid valid.txt --write`: "
        f"seconds of training until {options.preset} reaches {options.level:.4f} nats a token, "
        f"the level of counted trigrams, on the first {options.eval_tokens:,} held-out tokens; "
        f"looked at every {options.eval_every} steps. Medians of {options.rounds} seeds; two "
        "workers, two threads; compiling and evaluation outside the clock.",
        "",
        f"{machine()}.",
        "",
        "| | peer | seconds | steps | ms a step | last loss | of torch.compile's |",
        "|---|---|---|---|---|---|---|",
    ]
    missed = []
    for name, _, found in results:
        compiled = found["torch.compile"]["seconds"]
        for peer, row in found.items():
            ratio = row["seconds"] / compiled if max(row["seconds"], compiled) < NEVER else NEVER
            cells = [name, peer, shown(row["seconds"], ".1f"), shown(row["steps"], ".0f")]
            cells += [f"{row['ms']:.1f}", f"{row['loss']:.4f}", shown(ratio, ".2f")]
            lines.append("| " + " | ".join(cells) + " |")
        ours = found["ours"]["seconds"]
        if not ours <= BARS[name] * compiled or ours == NEVER:
            missed.append(f"{name}: {shown(ours / compiled, '.2f')}, bar {BARS[name]}")
    lines += ["", f"Same recipe: {json.dumps(SAME)}."]
    for side in ("ours", "torch"):
        lines.append(f"Best of {side}: {json.dumps(best[side]['recipe'])}, found by `--sweep`: ")
        lines[-1] += f"{best[side]['why']}."
    lines += ["", "Bars missed: " + ("none." if not missed else ""), *(f"- {m}" for m in missed)]
    return "\n".join(lines), missed


def shown(value: float | None, form: str) -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None or not abs(value) < NEVER else format(value, form)


if __name__ == "__main__":
    main()
