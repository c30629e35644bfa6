#!/usr/bin/env python3
"""How our training step grows: presets, length, batch and layers. No peers; one machine, one run.

    python benchmarks/training_step_growth.py [--rounds 5] [--write]

Exits 1 when time a token is not flat in the batch, time is not linear in layers, or the path up
to gpt-9m needs 1 GB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass

from report import in_turns, machine, medians, write_section
from training_step import proportional_size
from training_step_ours import OurStep

PRESETS = {  # n_embd, n_layer, n_head
    "gpt-1k": (8, 1, 1),
    "gpt-10k": (24, 1, 1),
    "gpt-100k": (40, 4, 2),
    "gpt-1m": (128, 4, 4),
    "gpt-4m": (192, 6, 6),
    "gpt-9m": (256, 8, 8),
}
LENGTHS = (64, 128, 256, 512, 1024)
TOKENS = 2048  # a batch, whatever its length
FLAT = 1.25  # largest over smallest time a token, batches of 4 to 32 rows
LINEAR = 1.15  # time a layer of 8 layers over that of 2, the head taken off


@dataclass
class Row:
    """Microseconds a token by length, and MB of both workers at the longest."""

    name: str
    microseconds: list[float]
    megabytes: float


def measured(shape: tuple[int, ...], rounds: int) -> tuple[float, float]:
    """Microseconds of one token of one step, and MB of both workers, in a process of its own."""
    command = [sys.executable, __file__, "--rounds", str(rounds), "--shape"]
    command.append(",".join(map(str, shape)))
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    microseconds, megabytes = json.loads(output)
    return microseconds, megabytes


def measure(shape: tuple[int, ...], rounds: int) -> tuple[float, float]:
    """The same, in this process."""
    ours = OurStep(shape)
    seconds = medians(in_turns({"ours": ours.step}, rounds=rounds, warm=2))["ours"]
    megabytes = sum(proportional_size(pid) for pid in ours.processes())
    return seconds / (shape[3] * shape[4]) * 1e6, megabytes


def preset_row(name: str, rounds: int) -> Row:
    """One preset at every length."""
    figures = [measured((*PRESETS[name], TOKENS // t, t), rounds) for t in LENGTHS]
    times, sizes = zip(*figures, strict=True)
    return Row(name, list(times), max(sizes))


def main() -> None:
    """Measures, prints, judges."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="put the result into RESULTS.md")
    parser.add_argument("--shape", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.shape:
        print(json.dumps(measure(tuple(map(int, options.shape.split(","))), options.rounds)))
        return

    rows = [preset_row(name, options.rounds) for name in PRESETS]
    by_batch = {b: measured((128, 4, 4, b, 128), 9)[0] for b in (4, 8, 16, 32)}
    by_layers = {n: measured((128, n, 4, 8, 128), 9)[0] for n in (2, 4, 8)}
    flat = max(by_batch.values()) / min(by_batch.values())
    first, last = (by_layers[4] - by_layers[2]) / 2, (by_layers[8] - by_layers[4]) / 4
    linear = last / first
    largest = rows[-1].megabytes

    missed = []
    if flat > FLAT:
        missed.append(f"time a token varies {flat:.2f} times over batches, bar {FLAT}")
    if linear > LINEAR:
        missed.append(f"a layer beyond the fourth costs {linear:.2f} of one before, bar {LINEAR}")
    if largest > 1000:
        missed.append(f"gpt-9m needs {largest:.0f} MB, bar 1000")
    lines = [
        "## How the training step grows",
        "",
        "`python benchmarks/training_step_growth.py --write`: microseconds a token, 2,048 tokens a "
        "step, vocabulary 1,024, two workers; MB of both workers together, at most.",
        "",
        f"{machine()}.",
        "",
        "| | " + " | ".join(f"T = {length}" for length in LENGTHS) + " | MB |",
        "|---|" + "---|" * (len(LENGTHS) + 1),
        *(
            f"| {row.name} | "
            + " | ".join(f"{value:.1f}" for value in row.microseconds)
            + f" | {row.megabytes:.0f} |"
            for row in rows
        ),
        "",
        "128 channels, T = 128, by rows of the batch: "
        + ", ".join(f"{b}: {value:.1f}" for b, value in by_batch.items())
        + f" (at most {flat:.2f} times the least). By layers, 8 rows: "
        + ", ".join(f"{n}: {value:.1f}" for n, value in by_layers.items())
        + f" (a layer beyond the fourth costs {linear:.2f} of one before).",
        "",
        "Bars missed: " + ("none." if not missed else ""),
        *(f"- {m}" for m in missed),
    ]
    text = "\n".join(lines)
    print(text)
    if options.write:
        write_section("training-step-growth", text)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
