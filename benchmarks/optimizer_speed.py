#!/usr/bin/env python3
"""One update of each optimiser: ours beside PyTorch's fused and foreach ones and the references.

    pip install torch lion-pytorch schedulefree threadpoolctl       (the last two peers: if there)
    python benchmarks/optimizer_speed.py [--rounds 40] [--write]

Each size runs in a process of its own, in which our workers are forked before torch is imported;
all take turns, with data as warm and on as many cores for each. Then what Muon adds to a whole
training step. Exits 1 when a bar is missed.

How fast AdamW can be in numpy: its update is eleven operations, each a pass over a block, where
fused code makes one pass with the numbers in registers. So two lines tell what is left to gain:
"arithmetic", the same operations on one block that never leaves the cache, on one core, and
"nothing", a job without work, which is the time to wake a worker and to hear from it. Half the
arithmetic and one such job are the floor of two workers; a third of the arithmetic is the square
root, which numpy takes four numbers at a time where fused code takes eight or sixteen. On top
comes the memory: a pass over a block waits for what is not in cache yet, and then computes, while
a fused loop does both at once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

from report import in_turns, machine, medians, write_section

SIZES = {"1M": (8, 128, 1024), "10M": (20, 256, 2048)}  # matrices, rows, columns
RUNNERS = ("inline", "threads", "processes")
# AdamW's time over torch's fused, for each size
BARS = {("1M", "processes"): 1.5, ("10M", "processes"): 2.2}
BARS |= {("1M", "threads"): 2.5, ("10M", "threads"): 3.0}
STEPS = {"16 x 256": (16, 256), "4 x 128": (4, 128)}  # of a model of 128 channels, 4 layers
MUON_BAR = ("16 x 256", 0.15)  # of the step
PAUSE, CALLS, LONG_TURN = 0.03, 5, 0.05  # seconds, calls, seconds
OURS = {
    "adamw": "AdamW",
    "lion": "Lion",
    "schedule-free": "ScheduleFreeAdamW",
    "muon": "Muon",
    "sgd": "SGD",
}


def main() -> None:
    """Times every size and step, prints the tables, judges them."""
    options = arguments()
    if options.size:
        print(json.dumps(time_size(options.size, options.rounds)))
        return
    if options.step:
        print(json.dumps(time_step(options.step, options.rounds)))
        return
    sizes = {size: in_own_process("--size", size, options.rounds) for size in SIZES}
    steps = {step: in_own_process("--step", step, options.rounds) for step in STEPS}
    missed = judge(sizes, steps)
    text = report(sizes, steps, missed)
    print(text)
    if options.write:
        write_section("optimizer-speed", text)
    sys.exit(1 if missed else 0)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--write", action="store_true", help="put the result into RESULTS.md")
    parser.add_argument("--size", choices=SIZES, help=argparse.SUPPRESS)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    return parser.parse_args()


def in_own_process(option: str, value: str, rounds: int) -> dict[str, float]:
    """What this program prints as JSON when called for one size or step."""
    command = [sys.executable, __file__, option, value, "--rounds", str(rounds)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(output.splitlines()[-1]))


def time_size(size: str, rounds: int) -> dict[str, float]:
    """peer -> seconds an update."""
    from optimizer_ours import arithmetic, updates  # noqa: PLC0415 (each imports what it times)

    peers = updates(SIZES[size], RUNNERS)  # forks, so before torch has any thread
    peers["arithmetic"] = arithmetic(parameters_of(size))
    from optimizer_torch import torch_updates  # noqa: PLC0415

    return medians(in_quiet_turns(peers | torch_updates(SIZES[size]), rounds=rounds))


def in_quiet_turns(
    peers: dict[str, Callable[[], object]], *, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each call. A turn is a pause, in which the threads of the peer before, which go on
    spinning for milliseconds, come to rest; one call that is not counted; and a few that are.
    """
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    names = list(peers)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            time.sleep(PAUSE)
            peers[name]()
            times: list[float] = []
            while len(times) < CALLS and sum(times) < LONG_TURN:
                start = time.perf_counter()
                peers[name]()
                times.append(time.perf_counter() - start)
            seconds[name] += times
    return seconds


def time_step(step: str, rounds: int) -> dict[str, float]:
    """Seconds of a training step with AdamW and with Muon, and of either update alone."""
    from optimizer_ours import OurSteps  # noqa: PLC0415

    ours = OurSteps(*STEPS[step])
    return medians(in_turns(ours.peers(), rounds=max(3, rounds // 2), warm=2))


def parameters_of(size: str) -> int:
    """How many."""
    count, rows, columns = SIZES[size]
    return count * rows * columns


def overhead(times: dict[str, float]) -> float:
    """What Muon's update takes more than AdamW's, as a share of the step with AdamW."""
    return (times["muon"] - times["adamw"]) / times["step"]


def judge(sizes: dict[str, dict[str, float]], steps: dict[str, dict[str, float]]) -> list[str]:
    """What misses its bar."""
    missed = []
    for (size, runner), bar in BARS.items():
        ratio = sizes[size][f"adamw {runner}"] / sizes[size]["adamw torch fused"]
        if ratio > bar:
            missed.append(f"AdamW, {size}, {runner}: {ratio:.2f} of torch's fused, bar {bar}")
    step, bar = MUON_BAR
    if overhead(steps[step]) > bar:
        missed.append(
            f"Muon, {step} tokens: {overhead(steps[step]):.0%} of the step, bar {bar:.0%}"
        )
    return missed


def report(
    sizes: dict[str, dict[str, float]], steps: dict[str, dict[str, float]], missed: list[str]
) -> str:
    """The section of RESULTS.md."""
    lines = [
        "## Optimisers: the time of an update",
        "",
        "`python benchmarks/optimizer_speed.py --write`: ns a parameter, float32, medians; ours "
        "inline, on two threads and on two processes, the others on two threads. 1M is 8 matrices "
        "of 128 x 1024, 10M 20 of 256 x 2048; but for Muon the others see one flat vector.",
        "",
        f"{machine()}.",
        "",
        "| | parameters | inline | threads | processes | torch fused | torch foreach | reference "
        "| processes / fused | processes / best other |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(row(name, size, times) for name in OURS for size, times in sizes.items()),
        "",
        *(floor(size, times) for size, times in sizes.items()),
        "",
        "What Muon's update takes more than AdamW's, beside a whole step (forward, backward, "
        "clipping, AdamW) of a model of 128 channels and 4 layers on two processes:",
        "",
        "| tokens | step, ms | AdamW's update, ms | Muon's update, ms | overhead |",
        "|---|---|---|---|---|",
    ]
    for step, times in steps.items():
        cells = [f"{times[what] * 1e3:.2f}" for what in ("step", "adamw", "muon")]
        lines.append(f"| {step} | {' | '.join(cells)} | {overhead(times):.0%} |")
    lines += ["", "Bars missed: " + ("none." if not missed else ""), *(f"- {m}" for m in missed)]
    return "\n".join(lines)


def floor(size: str, times: dict[str, float]) -> str:
    """What two workers cannot get below in numpy, beside torch's fused."""
    scale = 1e9 / parameters_of(size)
    alone, wake = times["arithmetic"] * scale, times["nothing processes"] * scale
    return (
        f"AdamW's eleven operations at {size}, on one block that stays in cache: {alone:.2f} ns a "
        f"parameter on one core; a job without work: {wake:.3f} (processes), "
        f"{times['nothing threads'] * scale:.3f} (threads). Two processes cannot get below "
        f"{alone / 2 + wake:.2f}, {(alone / 2 + wake) / (times['adamw torch fused'] * scale):.2f} "
        "of torch's fused."
    )


def row(name: str, size: str, times: dict[str, float]) -> str:
    """One line of the table."""
    others = ("torch fused", "torch foreach", "reference")
    found = {what: times.get(f"{name} {what}") for what in (*RUNNERS, *others)}
    scale = 1e9 / parameters_of(size)
    cells = [f"{found[w] * scale:.2f}" if found[w] else "-" for w in (*RUNNERS, *others)]
    fused = found["torch fused"]
    cells.append(f"{found['processes'] / fused:.2f}" if fused else "-")
    best = min((found[what] for what in others if found[what]), default=None)
    cells.append(f"{found['processes'] / best:.2f}" if best else "-")
    return f"| {OURS[name]} | {size} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
