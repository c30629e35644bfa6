#!/usr/bin/env python3
"""`phi-infer serve` under load: 64 clients, a tenth of them hanging up, beside one client alone.

    pip install 'phi-infer[server]' threadpoolctl
    python benchmarks/serve.py [--kind rwkv7] [--seconds 60] [--soak 600] [--write]

The server and the clients are processes of their own; the clients read bytes and parse nothing.
The model has 9.4M parameters (256 channels, 8 layers, 4096 tokens) and random weights: what it
says does not matter here. Beside it a plain server makes the same texts, one request at a time.
Memory: of the server's process, every second, in the last two thirds of the load. Exits 1 when a
bar is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import string
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from report import machine, write_section

from phi_model import ModelConfig, build_model, save_checkpoint
from phi_tokenizer import Tokenizer

HERE = Path(__file__).parent
CLIENTS = 64
BARS = {"times one client's tokens/s": 3.0, "growth of memory": 0.02}
PHI_INFER = [sys.executable, "-c", "from phi_infer.cli import main; main()"]


def main() -> None:
    """Measures, prints, judges."""
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "load.phi"
        n_parameters = make_model(checkpoint, options.kind)
        ours = [*PHI_INFER, "serve", str(checkpoint), "--port", "0", "--slots", str(CLIENTS)]
        with running(ours) as port:
            one = clients(port, 1, options.seconds / 3, hang_up=0.0)
            many = clients(port, CLIENTS, options.seconds, hang_up=0.1)
            soak = clients(port, CLIENTS, options.soak, hang_up=0.1) if options.soak else many
        with running([sys.executable, str(HERE / "serve_plain.py"), str(checkpoint)]) as port:
            plain = clients(port, CLIENTS, options.seconds / 2, hang_up=0.1, more=["--by-events"])
    ratio = many["tokens_per_second"] / one["tokens_per_second"]
    growth = memory_growth(soak["memory"])
    rows = {"one client": one, f"{CLIENTS} clients": many, f"plain server, {CLIENTS}": plain}
    n_errors = one["n_errors"] + many["n_errors"] + (soak["n_errors"] if options.soak else 0)
    missed = [f"{n_errors} errors: {many['errors'] + soak['errors']}"] if n_errors else []
    missed += [f"{name}: no request ended" for name, row in rows.items() if not row["requests"]]
    missed += [f"{ratio:.2f} times one client's"] if ratio < 3.0 else []
    missed += [f"memory grew by {growth:.1%}"] if growth > BARS["growth of memory"] else []
    facts = f"{options.kind}, {n_parameters / 1e6:.1f}M parameters, {options.seconds:g} s"
    memory = f"{min(soak['memory']) / 2**20:.0f} to {max(soak['memory']) / 2**20:.0f} MB"
    span = options.soak or options.seconds
    text = report(rows, facts, ratio, f"{memory} in {span:g} s, {growth:+.1%}", missed)
    print(text)
    if options.write:
        write_section(f"serve-{options.kind}", text)
    sys.exit(1 if missed else 0)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=["gpt", "rwkv7"], default="gpt")
    parser.add_argument("--seconds", type=float, default=60.0, help="with all clients")
    parser.add_argument("--soak", type=float, default=0.0, help="seconds more, to see the memory")
    parser.add_argument("--write", action="store_true", help="put the result into RESULTS.md")
    return parser.parse_args()


def make_model(path: Path, kind: str) -> int:
    """A checkpoint with random weights and a tokenizer; the number of its parameters."""
    rng = random.Random(1)
    words = [
        "".join(rng.choices(string.ascii_lowercase, k=rng.randrange(2, 9))) for _ in range(4000)
    ]
    tokenizer = Tokenizer.train(
        " ".join(rng.choices(words, k=40_000)), vocab_size=4096, special_tokens=["<|endoftext|>"]
    )
    config = ModelConfig(kind=kind, n_embd=256, n_layer=8, n_head=8, seq_len=256, vocab_size=4096)
    model = build_model(config, seed=1)
    noise = np.random.default_rng(1)
    for value in model.parameters.values():
        value[...] += noise.standard_normal(value.shape) * 0.02
    save_checkpoint(path, model, tokenizer=tokenizer.to_bytes())
    return config.n_parameters


@contextmanager
def running(command: list[str]) -> Iterator[int]:
    """A server's port, while it runs."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield int(line.split("http://127.0.0.1:")[1].split()[0])
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close() if process.stdout else None


def clients(
    port: int, n: int, seconds: float, *, hang_up: float, more: list[str] | None = None
) -> dict[str, Any]:
    """What serve_clients.py saw."""
    done = subprocess.run(
        [sys.executable, str(HERE / "serve_clients.py"), str(port), "--clients", str(n),
         "--seconds", str(seconds), "--hang-up", str(hang_up), *(more or [])],
        stdout=subprocess.PIPE, text=True, check=True, timeout=seconds + 120,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


def memory_growth(memory: list[float]) -> float:
    """The last third's mean over the middle third's, less 1."""
    third = max(1, len(memory) // 3)
    return float(np.mean(memory[-third:]) / np.mean(memory[-2 * third : -third or None]) - 1)


def percentile(values: list[float], share: float) -> float:
    """The value that this share does not exceed; infinite without any."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else math.inf


def report(
    rows: dict[str, dict[str, Any]], facts: str, ratio: float, memory: str, missed: list[str]
) -> str:
    """The section of RESULTS.md."""
    lines = [
        f"## Serving: {CLIENTS} clients, a tenth hanging up ({facts})",
        "",
        f"`python benchmarks/serve.py --kind {facts.partition(',')[0]} --write`: tokens a second "
        "of all clients together; milliseconds from a request to its first event. On the plain "
        "server those who never got one are not in its percentiles.",
        "",
        f"{machine()}.",
        "",
        "| | tokens/s | first event, median | p99 | requests | hang-ups | errors |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        first = row["seconds_to_first"]
        half, most = (f"{1000 * percentile(first, share):,.0f}" for share in (0.5, 0.99))
        lines.append(
            f"| {name} | {row['tokens_per_second']:,.0f} | {half} | {most} | {row['requests']:,} | "
            f"{row['hang_ups']} | {row['n_errors']} |"
        )
    lines += [
        "",
        f"All together {ratio:.2f} times one client's tokens/s (bar 3). Memory: {memory} (bar 2%).",
        "",
        f"Bars missed: {'; '.join(missed) or 'none'}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
