#!/usr/bin/env python3
"""`phi-infer serve` under load: 64 clients, a tenth of them hanging up, beside one client alone.

    pip install 'phi-infer[server]' threadpoolctl
    python benchmarks/serve.py [--kind rwkv7] [--seconds 60] [--soak 600] [--write]
    python benchmarks/serve.py --llama-server "llama-server -m {model} --port {port} -np 64"
    python benchmarks/serve.py --llama-server \
        "python -m llama_cpp.server --model {model} --port {port} --interrupt_requests false"

The server and the clients are processes of their own; the clients read bytes and parse nothing.
The model has 9.4M parameters (256 channels, 8 layers, 4096 tokens) and random weights: what it
says does not matter here. Beside it a plain server makes the same texts, one request at a time;
and, where a command is given, a server of llama.cpp's with the same weights as a GGUF file in F32
(llama-cpp-python's, pip install 'llama-cpp-python[server]', also takes one request at a time).
Memory: of the server's process, every second, in the last two thirds of the load. Exits 1 when a
bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import shlex
import socket
import string
import subprocess
import sys
import tempfile
import time
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
STARTED_SECONDS = 120.0  # for a peer
BARS = {"times one client's tokens/s": 3.0, "growth of memory": 0.02}
PHI_INFER = [sys.executable, "-c", "from phi_infer.cli import main; main()"]


def main() -> None:
    """Measures, prints, judges."""
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "load.phi"
        n_parameters = make_model(checkpoint, options.kind)
        ours = [*PHI_INFER, "serve", str(checkpoint), "--port", "0", "--slots", str(CLIENTS),
                "--workers", str(options.workers)]  # fmt: skip
        with running(ours) as port:
            one = clients(port, 1, options.seconds / 3, hang_up=0.0)
            many = clients(port, CLIENTS, options.seconds, hang_up=0.1)
            soak = clients(port, CLIENTS, options.soak, hang_up=0.1) if options.soak else many
        with running([sys.executable, str(HERE / "serve_plain.py"), str(checkpoint)]) as port:
            peers = {"plain server": by_events(port, options.seconds)}
        if options.llama_server:
            with llama_running(options.llama_server, checkpoint) as port:
                peers["llama.cpp's server"] = by_events(port, options.seconds)
    ratio = many["tokens_per_second"] / one["tokens_per_second"]
    growth = memory_growth(soak["memory"])
    rows = {"one client": one, f"{CLIENTS} clients": many}
    rows |= {f"{name}, {CLIENTS}": seen for name, seen in peers.items()}
    n_errors = one["n_errors"] + many["n_errors"] + (soak["n_errors"] if options.soak else 0)
    missed = [f"{n_errors} errors: {many['errors'] + soak['errors']}"] if n_errors else []
    missed += [f"{name}: no request ended" for name, row in rows.items() if not row["requests"]]
    missed += [f"{ratio:.2f} times one client's"] if ratio < 3.0 else []
    missed += [f"memory grew by {growth:.1%}"] if growth > BARS["growth of memory"] else []
    facts = (
        f"{options.kind}, {n_parameters / 1e6:.1f}M parameters, {options.workers} workers, "
        f"{options.seconds:g} s"
    )
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
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--seconds", type=float, default=60.0, help="with all clients")
    parser.add_argument("--soak", type=float, default=0.0, help="seconds more, to see the memory")
    parser.add_argument("--llama-server", metavar="COMMAND", help="with {model} and {port} in it")
    parser.add_argument("--write", action="store_true", help="put the result into RESULTS.md")
    options = parser.parse_args()
    if options.llama_server and options.kind != "gpt":
        parser.error("--llama-server: only a gpt can be made a GGUF file")
    return options


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
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            yield int(line.split("http://127.0.0.1:")[1].split()[0])
        finally:
            end(process)


@contextmanager
def llama_running(command: str, checkpoint: Path) -> Iterator[int]:
    """The port of a server of llama.cpp's, while it runs."""
    model = checkpoint.with_suffix(".gguf")
    subprocess.run([*PHI_INFER, "convert", str(checkpoint), str(model), "--to", "gguf"],
                   check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    words = [word.format(model=model, port=port) for word in shlex.split(command)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until_it_answers(process, port)
            yield port
        finally:
            end(process)


def wait_until_it_answers(process: subprocess.Popen[Any], port: int) -> None:
    """Exits when the server ended, or took minutes."""
    limit = time.monotonic() + STARTED_SECONDS
    while process.poll() is None and time.monotonic() < limit:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            seen = clients(port, 1, 5.0, hang_up=0.0, more=["--by-events"])
            if seen["seconds_to_first"]:
                return
        time.sleep(0.5)
    sys.exit("llama.cpp's server does not answer: try its command alone")


def end(process: subprocess.Popen[Any]) -> None:
    """Ends a server."""
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()


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


def by_events(port: int, seconds: float) -> dict[str, Any]:
    """All clients at a peer, for half the time; it need not have our /metrics."""
    return clients(port, CLIENTS, seconds / 2, hang_up=0.1, more=["--by-events"])


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
        "of all clients together; milliseconds from a request to its first event. On servers that "
        "make one text at a time those who never got one are not in the percentiles.",
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
