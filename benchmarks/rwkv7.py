#!/usr/bin/env python3
"""RWKV-7: its recurrence in chunks beside the loop, whole training steps beside GPTs, and a step
of generation early and late in a text.

    pip install torch threadpoolctl
    python benchmarks/rwkv7.py [--rounds 15] [--parts mixing,steps,flat] [--lengths 128] [--write]

At most ten minutes. Exits 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from report import in_turns, machine, medians, write_section
from rwkv7_loop import FastLoop
from training_step_ours import OurStep

from phi_infer.rwkv7_step import RWKV7Step
from phi_model import ModelConfig, build_model
from phi_model.rwkv7.wkv_chunked import WKV
from phi_model.team import make_team

MIXING_BARS = {128: 2.5, 256: 2.5, 512: 2.3, 1024: 2.1}  # times as fast as the loop
FLATNESS = 0.03  # the two medians' distance
BATCH, HEADS, SIZE = 4, 4, 32
NAMES = ("r", "log_w", "k", "v", "q", "b")
EQUAL_HIDDEN = 448  # makes gpt-1m as large as rwkv7-1m: 951,424 and 952,192 beside the embedding
PEERS = ("RWKV-7", "GPT", "torch GPT", "torch RWKV-7 loop")
SECONDS = 40.0  # of steps at one length: fewer rounds where they are long
LEAST_ROUNDS = 3
LONGEST = 12.0  # s a step: what would take longer is left out
LOOP_SECONDS = 0.02  # of torch's loop, a token of a row, before it has been timed


def main() -> None:
    """Runs the parts asked for, prints their tables, judges them."""
    options = arguments()
    if options.length:
        print(json.dumps(step_times(options.length, options.rounds, loop=options.loop)))
        return
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
    parser.add_argument("--length", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--loop", action="store_true", help=argparse.SUPPRESS)
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


def steps(lengths: list[int], rounds: int) -> tuple[str, list[str]]:
    """Steps of models of equal size; says where lines cross. There is no bar."""
    lines = [
        "Whole training steps, 0.95M parameters beside the embedding, B=4; ours on two workers "
        "with one BLAS thread each, torch (eager) on its own threads, one a core:",
        "",
        f"| T | {' | '.join(PEERS)} | RWKV-7 / GPT |",
        "|---|---|---|---|---|---|",
    ]
    ratios: dict[int, float] = {}
    loop_seconds = LOOP_SECONDS
    for length in lengths:
        times = in_own_process(length, rounds, loop=loop_seconds * length <= LONGEST)
        if PEERS[3] in times:
            loop_seconds = times[PEERS[3]] / length
        ratios[length] = times["RWKV-7"] / times["GPT"]
        cells = " | ".join(f"{times[n] * 1e3:.1f}" if n in times else "-" for n in PEERS)
        lines.append(f"| {length} | {cells} | {ratios[length]:.2f} |")
        print(lines[-1], flush=True)
    lines += ["", f"{crossing(ratios)} The loop in torch was timed once, and not where it would"]
    lines[-1] += f" take more than {LONGEST:.0f} s a step (-)."
    return "\n".join(lines), []


def crossing(ratios: dict[int, float]) -> str:
    """Where RWKV-7's line goes below the GPT's, between lengths as on two logarithmic axes."""
    longest_first = sorted(ratios, reverse=True)
    slower = [length for length in longest_first if ratios[length] >= 1]
    if not slower:
        return f"RWKV-7 is the faster of our two from T = {longest_first[-1]} on."
    if slower[0] == longest_first[0]:
        return "RWKV-7 is the faster of our two at none of these lengths."
    below, above = slower[0], longest_first[longest_first.index(slower[0]) - 1]
    share = math.log(ratios[below]) / (math.log(ratios[below]) - math.log(ratios[above]))
    at = below * (above / below) ** share
    return (
        f"RWKV-7 is the faster of our two from T = {above} on; the lines cross near T = {at:.0f}."
    )


def in_own_process(length: int, rounds: int, *, loop: bool) -> dict[str, float]:
    """step_times; our workers are forked before torch has threads, and all end with a length."""
    command = [sys.executable, __file__, "--length", str(length), "--rounds", str(rounds)]
    command += ["--loop"] if loop else []
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def step_times(length: int, rounds: int, *, loop: bool) -> dict[str, float]:
    """Medians of each peer's step in seconds; of torch's loop a single one, the first."""
    peers = step_peers(length)
    torch_loop = peers.pop(PEERS[3])
    started = time.perf_counter()
    for call in peers.values():
        call()
    one_round = time.perf_counter() - started
    rounds = max(LEAST_ROUNDS, min(rounds, int(SECONDS / one_round)))
    times = medians(in_turns(peers, rounds=rounds, warm=1 if one_round < SECONDS / 10 else 0))
    if loop:
        started = time.perf_counter()
        torch_loop()
        times[PEERS[3]] = time.perf_counter() - started
    return times


def step_peers(length: int) -> dict[str, Callable[[], object]]:
    """name -> a call that makes one step; ours are made first, before torch has any thread."""
    shape = (128, 4, HEADS, BATCH, length)
    rwkv = ModelConfig.preset("rwkv7-1m", seq_len=length)
    gpt = ModelConfig.preset("gpt-1m", seq_len=length, n_hidden=EQUAL_HIDDEN)
    peers: list[Callable[[], object]] = [OurStep(shape, rwkv).step, OurStep(shape, gpt).step]
    from rwkv7_torch import TorchRWKV7, torch_gpt  # noqa: PLC0415 (after the fork)
    from training_step_torch import torch_step  # noqa: PLC0415

    for model in (torch_gpt(shape, EQUAL_HIDDEN), TorchRWKV7(rwkv)):
        peers.append(torch_step(model, model, shape))
    return dict(zip(PEERS, peers, strict=True))


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
        texts = {100: step.copy(), 1_000_000: step.copy()}
        texts[100].load_state(early)
        texts[1_000_000].load_state(late)
        n_bytes = late.stat().st_size
    seconds: dict[int, list[float]] = {position: [] for position in texts}
    for turn in range(200 * rounds):
        if turn == 200:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for position in list(texts)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            texts[position](7)
            seconds[position].append(time.perf_counter() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak if rounds > 1 else 0
    first, second = (statistics.median(times) * 1e6 for times in seconds.values())
    apart = abs(first - second) / min(first, second)
    text = (
        f"A step of generation from position 100: {first:.0f} us; from 1,000,000: {second:.0f} us "
        f"({apart:.1%} apart, bar {FLATNESS:.0%}). State {step.state.nbytes:,} bytes, its file "
        f"{n_bytes:,}; peak memory grew by {grown} kB over {400 * rounds} steps."
    )
    missed = [f"the two positions are {apart:.1%} apart"] if apart > FLATNESS else []
    missed += [f"memory grew by {grown} kB"] if grown > 256 else []
    return text, missed


if __name__ == "__main__":
    main()
