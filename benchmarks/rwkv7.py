#!/usr/bin/env python3
"""RWKV-7: its recurrence in chunks beside the loop, whole training steps beside GPTs, and a step
of generation early and late in a text.

    pip install torch threadpoolctl
    python benchmarks/rwkv7.py [--rounds 15] [--parts mixing,steps,flat] [--lengths 128] [--write]

Exits 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from report import in_turns, machine, medians, write_section
from rwkv7_loop import FastLoop

from phi_infer.rwkv7_step import RWKV7Step
from phi_model import ModelConfig, RWKV7State, build_model, shared_zeros
from phi_model.rwkv7.wkv_chunked import WKV
from phi_model.team import make_team
from phi_optim import AdamW, clip_scale

MIXING_BARS = {128: 2.5, 256: 2.5, 512: 2.3, 1024: 2.1}  # times as fast as the loop
FLATNESS = 0.03  # the two medians' distance
BATCH, HEADS, SIZE = 4, 4, 32
NAMES = ("r", "log_w", "k", "v", "q", "b")
EQUAL_HIDDEN = 448  # makes gpt-1m as large as rwkv7-1m: 951,424 and 952,192 beside the embedding


def main() -> None:
    """Runs the parts asked for, prints their tables, judges them."""
    options = arguments()
    lengths = [int(n) for n in options.lengths.split(",")]
    sections, missed = [], []
    for part in options.parts.split(","):
        text, faults = {
            "mixing": lambda: mixing(options.rounds),
            "steps": lambda: steps(lengths, options.rounds),
            "flat": lambda: flat(options.rounds),
        }[part]()
        sections.append(text)
        missed += faults
        print(text + "\n", flush=True)
    bars = "Bars missed: " + (
        "none." if not missed else "\n\n" + "\n".join(f"- {m}" for m in missed)
    )
    print(bars)
    if options.write:
        command = "`python benchmarks/rwkv7.py --write`: ms, float32, medians."
        text = "\n\n".join(["## RWKV-7", command, f"{machine()}.", *sections, bars])
        write_section("rwkv7", text)
    sys.exit(1 if missed else 0)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="RWKV-7's recurrence, steps and flatness")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--parts", default="mixing,steps,flat")
    parser.add_argument("--lengths", default="128,256,512,1024,2048,4096")
    parser.add_argument("--write", action="store_true", help="put the result into RESULTS.md")
    return parser.parse_args()


# --- (a) the recurrence alone -------------------------------------------------------------------


def mixing(rounds: int) -> tuple[str, list[str]]:
    """Forward and backward by chunks and by the loop, one thread."""
    lines = ["Recurrence alone, forward and backward (B=4, C=128, N=32, one thread):", ""]
    lines += ["| T | loop | chunks | times as fast | bar |", "|---|---|---|---|---|"]
    missed = []
    for length, bar in MIXING_BARS.items():
        chunks, loop = mixing_peers(length)
        jobs = {"loop": lambda _, loop=loop: loop(), "chunks": lambda _, chunks=chunks: chunks()}
        run = make_team("inline", 1, jobs).run  # holds BLAS to one thread
        calls = {name: partial(run, name) for name in jobs}
        times = medians(in_turns(calls, rounds=rounds))
        ratio = times["loop"] / times["chunks"]
        cells = f"{times['loop'] * 1e3:.1f} | {times['chunks'] * 1e3:.1f} | {ratio:.2f} | {bar}"
        lines.append(f"| {length} | {cells} |")
        if ratio < bar:
            missed.append(
                f"T={length}: chunks are {ratio:.2f} times as fast as the loop, bar {bar}"
            )
    return "\n".join(lines), missed


def mixing_peers(length: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Both on equal inputs; their gradients are compared first."""
    rng = np.random.default_rng(0)
    shape = (BATCH, length, HEADS, SIZE)
    x = {name: rng.standard_normal(shape, dtype=np.float32) for name in ("r", "k", "v", "dy")}
    x["log_w"] = (-np.exp(-0.5) / (1 + np.exp(-rng.standard_normal(shape)))).astype(np.float32)
    kappa = rng.standard_normal(shape)
    kappa /= np.linalg.norm(kappa, axis=-1, keepdims=True)
    x["q"] = kappa.astype(np.float32)
    x["b"] = (-kappa * rng.uniform(0, 1, shape)).astype(np.float32)
    wkv = WKV(BATCH, length, HEADS, SIZE, dtype=np.float32)
    for name in NAMES:
        getattr(wkv, name)[...] = x[name].reshape(BATCH, length, -1)
    wkv.states[0] = 0
    dy = x["dy"].reshape(BATCH, length, -1)
    in_time = {
        n: np.ascontiguousarray(v.swapaxes(0, 1)).reshape(length, -1, SIZE) for n, v in x.items()
    }
    fast = FastLoop(in_time, np.zeros((BATCH * HEADS, SIZE, SIZE), np.float32))

    def chunks() -> None:
        wkv.forward()
        wkv.dy[...] = dy
        wkv.backward()

    def loop() -> None:
        fast.forward()
        fast.backward()

    chunks()
    loop()
    for ours, theirs in ((wkv.dq, fast.dq), (wkv.dlog_w, fast.dlog_w), (wkv.dr, fast.dr)):
        same = theirs.reshape(length, BATCH, -1).swapaxes(0, 1)
        assert np.abs(ours - same).max() < 1e-4 * np.abs(same).max()
    return chunks, loop


# --- (b) whole training steps -------------------------------------------------------------------


class OurStep:
    """Forward, backward, clipping and AdamW by two workers, as `phi-train run` does them."""

    def __init__(self, config: ModelConfig, batch: int, length: int) -> None:
        self.model = build_model(config, seed=0)
        self.optimizer = AdamW(self.model.parameters, allocate=shared_zeros)
        rows = np.random.default_rng(0).integers(0, 1024, (batch, length + 1))
        self.ids, self.targets = rows[:, :-1], rows[:, 1:]
        self.model.start_workers(2, batch_size=batch, seq_len=length, jobs={"update": self._update})

    def _update(self, member: int, step: float, scale: float) -> None:
        self.optimizer.update(
            self.model.gradients,
            step=int(step),
            learning_rate=1e-4,
            scale=scale,
            share=member,
            shares=2,
        )

    def step(self) -> float:
        """One step; its loss."""
        loss = self.model.loss_and_grad(self.ids, self.targets)
        self.optimizer.steps += 1
        scale = clip_scale(self.model.gradient_norm, 1.0)
        self.model.run_job("update", self.optimizer.steps, scale)
        return loss


def steps(lengths: list[int], rounds: int) -> tuple[str, list[str]]:
    """Steps of models of equal size; says where lines cross. There is no bar."""
    lines = ["Whole training steps, 0.95M parameters beside the embedding, B=4, two workers:", ""]
    names = ["RWKV-7", "GPT", "torch GPT", "torch RWKV-7 loop"]
    lines += [f"| T | {' | '.join(names)} | RWKV-7 / GPT |", "|---|---|---|---|---|---|"]
    ratios = {}
    for length in lengths:
        few = rounds if length <= 512 else max(2, rounds // 3)
        times = medians(in_turns(step_peers(length), rounds=few, warm=1))
        ratios[length] = times["RWKV-7"] / times["GPT"]
        cells = " | ".join(f"{times[name] * 1e3:.1f}" for name in names)
        lines.append(f"| {length} | {cells} | {ratios[length]:.2f} |")
        print(lines[-1], flush=True)
    faster = [length for length, ratio in ratios.items() if ratio < 1]
    crossing = f"from T = {min(faster)} on" if faster else "at none of these lengths"
    lines += ["", f"RWKV-7 is the faster of our two {crossing}."]
    return "\n".join(lines), []


def step_peers(length: int) -> dict[str, Callable[[], object]]:
    """name -> a call that makes one step; ours are made first, before torch has any thread."""
    rwkv = ModelConfig.preset("rwkv7-1m", seq_len=length)
    gpt = ModelConfig.preset("gpt-1m", seq_len=length, n_hidden=EQUAL_HIDDEN)
    ours = {"RWKV-7": OurStep(rwkv, BATCH, length).step, "GPT": OurStep(gpt, BATCH, length).step}
    from rwkv7_torch import TorchRWKV7, torch_gpt, torch_step  # noqa: PLC0415 (after the fork)

    shape = (128, 4, 4, BATCH, length)
    ours["torch GPT"] = torch_step(torch_gpt(shape, EQUAL_HIDDEN), BATCH, length)
    ours["torch RWKV-7 loop"] = torch_step(TorchRWKV7(rwkv), BATCH, length)
    return ours


# --- (c) flatness -------------------------------------------------------------------------------


def flat(rounds: int) -> tuple[str, list[str]]:
    """Steps in turn from states saved at positions 100 and 1,000,000."""
    model = build_model(ModelConfig.preset("rwkv7-1m"), seed=0)
    rng = np.random.default_rng(0)
    for value in model.parameters.values():
        value[...] += 0.02 * rng.standard_normal(value.shape, dtype=np.float32)
    step = RWKV7Step(model.config, model.parameters)
    with tempfile.TemporaryDirectory() as folder:
        early, late = Path(folder, "early"), Path(folder, "late")
        for token in rng.integers(0, 1024, 100):
            step(int(token))
        step.save_state(early)
        step.state.position = 1_000_000
        step.save_state(late)
        states = {100: RWKV7State.load(early), 1_000_000: RWKV7State.load(late)}
        n_bytes = late.stat().st_size
    seconds: dict[int, list[float]] = {position: [] for position in states}
    for turn in range(200 * rounds):
        if turn == 200:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for position in list(states)[:: 1 if turn % 2 else -1]:
            step.state = states[position]
            start = time.perf_counter()
            step(7)
            seconds[position].append(time.perf_counter() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak if rounds > 1 else 0
    first, second = (statistics.median(times) * 1e6 for times in seconds.values())
    apart = abs(first - second) / min(first, second)
    text = (
        f"A step of generation from position 100: {first:.0f} us; from 1,000,000: {second:.0f} us "
        f"({apart:.1%} apart, bar {FLATNESS:.0%}). State {states[100].nbytes:,} bytes, its file "
        f"{n_bytes:,}; peak memory grew by {grown} kB over {400 * rounds} steps."
    )
    missed = [f"the two positions are {apart:.1%} apart"] if apart > FLATNESS else []
    missed += [f"memory grew by {grown} kB"] if grown > 256 else []
    return text, missed


if __name__ == "__main__":
    main()
