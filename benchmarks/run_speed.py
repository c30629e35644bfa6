#!/usr/bin/env python3
"""What `phi-train run` costs beside the bare training step, and how soon it makes the first one.

    pip install threadpoolctl
    python benchmarks/run_speed.py --data stories.txt [--rounds 5] [--steps 300] [--write]

A round is a run and as many bare steps (forward, backward, clipping, the same optimiser's update,
on the same batches), in turns; evaluation, samples and checkpoints are left out. The start is timed
from outside: from the call of the command on prepared data to the first line of its log. Exits 1
when a bar is missed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import machine, write_section

BARS = {"tokens a second, share of the bare step's": 0.95, "seconds to the first step": 2.0}
SHAPES = [("gpt-1m", 4, 128), ("gpt-1m", 16, 256), ("gpt-100k", 4, 128)]
STARTS = 5


def main() -> None:
    """Measures, prints the tables, judges them."""
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(options.data, Path(folder))
        start = statistics.median(start_up(prepared, Path(folder), n) for n in range(STARTS))
        rows = []
        for shape in SHAPES:
            rows.append((shape, *measure(shape, prepared, Path(folder), options)))
            print(row_text(*rows[-1]), flush=True)
    missed = [f"{shape}: {bare / run:.3f}" for shape, run, bare in rows if bare / run < 0.95]
    missed += [f"the start: {start:.2f} s"] if start > BARS["seconds to the first step"] else []
    text = report(rows, start, missed)
    print(text)
    if options.write:
        write_section("run-speed", text)
    sys.exit(1 if missed else 0)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a text of a megabyte or more")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300, help="of 4 x 128 tokens, in a round")
    parser.add_argument("--write", action="store_true", help="put the result into RESULTS.md")
    return parser.parse_args()


def prepare(data: str, folder: Path) -> Path:
    """Token shards of the text."""
    from phi_train.prepare import prepare as prepare_shards  # noqa: PLC0415

    prepare_shards(data, folder / "prepared", vocab_size=1024)
    return folder / "prepared"


def start_up(prepared: Path, folder: Path, n: int) -> float:
    """Seconds from the command to the first line of metrics.jsonl."""
    out = folder / f"start-{n}"
    program = Path(sys.executable).with_name("phi-train")
    command = [program, "run", "--data", prepared, "--out", out, "--steps", "100000"]
    began = time.perf_counter()
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL)
    try:
        metrics = out / "metrics.jsonl"
        while not (metrics.exists() and metrics.stat().st_size):
            if process.poll() is not None:
                raise RuntimeError("the run ended before its first step")
            time.sleep(0.002)
        return time.perf_counter() - began
    finally:
        process.terminate()
        process.wait()


def measure(
    shape: tuple[str, int, int], prepared: Path, folder: Path, options: argparse.Namespace
) -> tuple[float, float]:
    """Seconds a step of the run, and of the bare step; medians over the rounds' means."""
    from phi_train import TrainConfig, train  # noqa: PLC0415
    from phi_train.progress import Quiet  # noqa: PLC0415

    class Watch(Quiet):
        def __init__(self) -> None:
            self.times: list[float] = []

        def step(self, *_args: object, **_options: object) -> None:
            self.times.append(time.perf_counter())

    preset, batch, length = shape
    steps = max(20, options.steps * 512 // (batch * length))
    figures: dict[str, list[float]] = {"run": [], "bare": []}
    for n in range(options.rounds):
        config = TrainConfig(
            data=str(prepared),
            preset=preset,
            batch_size=batch,
            seq_len=length,
            steps=steps,
            out=str(folder / f"{preset}-{batch}-{n}"),
            workers="2",
            eval_every=steps * 2,
            eval_tokens=100,
            sample_every=0,
            checkpoint_every=0,
            baselines=False,
        )
        for who in ("run", "bare") if n % 2 else ("bare", "run"):
            if who == "run":
                watch = Watch()
                train(config, progress=watch)
                times = watch.times
            else:
                times = bare_steps(config)
            warm = len(times) // 10
            figures[who].append((times[-1] - times[warm]) / (len(times) - 1 - warm))
    return statistics.median(figures["run"]), statistics.median(figures["bare"])


def bare_steps(config: object) -> list[float]:
    """When each of as many steps ended: nothing but the model and the optimiser."""
    from phi_model import build_model  # noqa: PLC0415
    from phi_train.batches import make_batches  # noqa: PLC0415
    from phi_train.learner import Learner  # noqa: PLC0415
    from phi_train.shards import open_prepared  # noqa: PLC0415

    stream = open_prepared(config.data).train
    model = build_model(config.model_config(1024), seed=0)
    learner = Learner(model, config)
    batches = make_batches(
        "random", stream, batch_size=config.batch_size, seq_len=config.seq_len, seed=0
    )
    made = [batches(step) for step in range(config.steps)]  # as the run has them
    learner.start_workers(2)
    times = []
    try:
        for step, (ids, targets) in enumerate(made, 1):
            _, norm = learner.loss_and_grad(ids, targets)
            learner.update(step, rate=1e-3, norm=norm)
            times.append(time.perf_counter())
    finally:
        model.stop_workers()
    return times


def row_text(shape: tuple[str, int, int], run: float, bare: float) -> str:
    """One line of the table."""
    preset, batch, length = shape
    tokens = batch * length
    return (
        f"| {preset} | {batch} x {length} | {tokens / bare:,.0f} | {tokens / run:,.0f} | "
        f"{bare / run:.3f} |"
    )


def report(rows: list[tuple], start: float, missed: list[str]) -> str:
    """The section of RESULTS.md."""
    lines = [
        "## A run beside the bare step",
        "",
        "`python benchmarks/run_speed.py --data stories.txt --write`: tokens a second, two "
        "workers; evaluation, samples and checkpoints left out.",
        "",
        f"{machine()}.",
        "",
        "| preset | batch | bare step | phi-train run | share (bar 0.95) |",
        "|---|---|---|---|---|",
        *(row_text(*row) for row in rows),
        "",
        f"From the command to the first step, on prepared data: {start:.2f} s (bar 2 s).",
        "",
        "Bars missed: " + ("none." if not missed else ""),
        *(f"- {m}" for m in missed),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
