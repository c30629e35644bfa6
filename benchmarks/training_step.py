#!/usr/bin/env python3
"""A whole training step (forward, backward, clip, AdamW): ours beside PyTorch and beside the
step's own matrix products.

    pip install torch threadpoolctl        (jax is timed too, where it is installed)
    python benchmarks/training_step.py [--rounds 15] [--shapes 0,1,2,3,4] [--write]

The bound is exact: the products of our own step are recorded, operands and all, and replayed by
the same two single-threaded workers at once. Exits 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from report import in_turns, machine, medians, write_section
from training_step_ours import OurStep

SHAPES = [  # n_embd, n_layer, n_head, batch, length; vocabulary 1024
    (128, 4, 4, 4, 128),
    (192, 6, 6, 4, 128),
    (256, 8, 8, 4, 128),
    (128, 4, 4, 16, 256),
    (256, 8, 8, 8, 256),
]
# of torch.compile's time, and the least share of the products' bound, for each shape
BARS = {
    "native": ([0.50, 0.50, 0.50, 0.50, 0.52], [0.72, 0.75, 0.75, 0.75, 0.75]),
    "AVX2": ([0.76, 0.76, 0.76, 0.76, None], [0.85] * 5),
}
MEMORY_BARS = {0: 0.5, 4: 0.8}  # of torch.compile's peak
AVX2_KERNELS = {"Haswell", "Zen"}


def main() -> None:
    """Times every shape, prints the tables, judges them."""
    options = arguments()
    if options.part == "times":
        calls = peers(SHAPES[options.shape])
        print(json.dumps(medians(in_turns(calls, rounds=options.rounds, warm=4, lead=2))))
        return
    if options.part:
        print(json.dumps(peak_memory(options.part, SHAPES[options.shape])))
        return
    mode = "AVX2" if kernel() in AVX2_KERNELS else "native"
    chosen = [int(i) for i in options.shapes.split(",")]
    rows, missed = [], []
    for i in chosen:
        times = in_own_process("times", i, options.rounds)
        rows.append((i, times))
        missed += judge(i, times, mode)
        print(row_text(i, times), flush=True)
    memory = {i: memory_row(i) for i in MEMORY_BARS if i in chosen and not options.no_memory}
    missed += [
        f"shape {SHAPES[i]}: peak memory {ours / torch:.2f} of torch.compile's, bar {bar}"
        for i, bar in MEMORY_BARS.items()
        if i in memory and (ours := memory[i][0]) > bar * (torch := memory[i][1])
    ]
    text = report(mode, rows, memory, missed)
    print(text)
    if options.write:
        write_section(f"training-step-{mode}", text)
    sys.exit(1 if missed else 0)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--shapes", default="0,1,2,3,4")
    parser.add_argument("--write", action="store_true", help="put the result into RESULTS.md")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--part", choices=["times", "ours", "torch"], help=argparse.SUPPRESS)
    parser.add_argument("--shape", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def kernel() -> str:
    """The kernel that numpy's BLAS chose."""
    from threadpoolctl import threadpool_info  # noqa: PLC0415

    blas = [info for info in threadpool_info() if info["internal_api"] == "openblas"]
    return str(blas[0].get("architecture")) if blas else "?"


def peers(shape: tuple[int, ...]) -> dict:
    """name -> a call that makes one step; ours is made first, before torch has any thread."""
    ours = OurStep(shape)
    found = {"ours": ours.step, "products": ours.replay}
    from training_step_torch import torch_steps  # noqa: PLC0415 (after the fork)

    found |= torch_steps(shape)
    try:
        from training_step_jax import jax_step  # noqa: PLC0415
    except ImportError:
        return found
    return found | {"jax.jit": jax_step(shape)}


def judge(i: int, times: dict[str, float], mode: str) -> list[str]:
    """What misses its bar. Where the products alone exceed the ratio, the bound decides."""
    ratios, shares = BARS[mode]
    missed = []
    share = times["products"] / times["ours"]
    if share < shares[i]:
        missed.append(f"shape {SHAPES[i]}: {share:.0%} of the bound, bar {shares[i]:.0%}")
    bar, torch = ratios[i], times["torch.compile"]
    if bar is not None and times["ours"] > bar * torch and times["products"] <= bar * torch:
        missed.append(f"shape {SHAPES[i]}: {times['ours'] / torch:.2f} of torch.compile, bar {bar}")
    return missed


def row_text(i: int, times: dict[str, float]) -> str:
    """One line of the table."""
    cells = [",".join(map(str, SHAPES[i]))]
    names = ["torch eager", "torch.compile", "jax.jit", "ours", "products"]
    cells += [f"{times[name] * 1e3:.1f}" if name in times else "-" for name in names]
    cells.append(f"{times['ours'] / times['torch.compile']:.2f}")
    cells.append(f"{times['products'] / times['torch.compile']:.2f}")
    cells.append(f"{times['products'] / times['ours']:.0%}")
    return "| " + " | ".join(cells) + " |"


def report(mode: str, rows: list, memory: dict, missed: list[str]) -> str:
    """The section of RESULTS.md."""
    lines = [
        f"## Training step, {mode} BLAS",
        "",
        "`python benchmarks/training_step.py --write`: ms a step, forward, backward, clipping and "
        "AdamW, float32, medians; ours on two workers with one BLAS thread each, the others on two "
        "threads.",
        "",
        f"{machine()}.",
        "",
        "| C,L,heads,B,T | torch eager | torch.compile | jax.jit | ours | the step's products "
        "| ours / compile | products / compile | share of the bound |",
        "|---|---|---|---|---|---|---|---|---|",
        *(row_text(i, times) for i, times in rows),
    ]
    if memory:
        lines += ["", "Peak memory, MB (ours: both workers; shared pages once):", ""]
        lines += ["| C,L,heads,B,T | torch.compile | ours | ratio |", "|---|---|---|---|"]
        for i, (ours, torch) in memory.items():
            shape = ",".join(map(str, SHAPES[i]))
            lines.append(f"| {shape} | {torch:.0f} | {ours:.0f} | {ours / torch:.2f} |")
    lines += ["", "Bars missed: " + ("none." if not missed else ""), *(f"- {m}" for m in missed)]
    return "\n".join(lines)


def memory_row(i: int) -> tuple[float, float]:
    """Peak MB of ours and of torch.compile."""
    return in_own_process("ours", i), in_own_process("torch", i)


def in_own_process(part: str, i: int, rounds: int = 0):
    """What a part of this benchmark prints for shape i: our workers are forked before torch, and
    torch's threads and compiler end with each shape.
    """
    command = [sys.executable, __file__, "--part", part, "--shape", str(i), "--rounds", str(rounds)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def peak_memory(who: str, shape: tuple[int, ...]) -> float:
    """MB after a few steps: proportional set size of ours, the high-water mark of torch."""
    if who == "ours":
        ours = OurStep(shape)
        for _ in range(3):
            ours.step()
        return sum(proportional_size(pid) for pid in ours.processes())
    from training_step_torch import torch_steps  # noqa: PLC0415

    step = torch_steps(shape)["torch.compile"]
    for _ in range(3):
        step()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    kilobytes = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kilobytes.split()[1]) / 1000


def proportional_size(pid: int) -> float:
    """MB of a process, pages shared with others divided among them."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    return int(next(li for li in rollup.splitlines() if li.startswith("Pss:")).split()[1]) / 1000


def batch_of(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The same ids and targets for every peer."""
    _, _, _, batch, length = shape
    rows = np.random.default_rng(0).integers(0, 1024, (batch, length + 1))
    return rows[:, :-1], rows[:, 1:]


if __name__ == "__main__":
    main()
