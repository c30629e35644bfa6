#!/usr/bin/env python3
"""Making text: ours beside llama2.c, torch eager and the package rwkv, all on the same weights.

    pip install torch rwkv threadpoolctl        (what is not installed is left out)
    python benchmarks/inference.py --llama2c PATH/run.c [--rounds 15] [--models a,b,c] [--write]

One text of 256 greedy tokens, float32; the peers take turns, each in a process of its own, and
the figures are medians. llama2.c is compiled here from the source at PATH. The tokens must be
those of phi_model's logits for every peer. Exits 1 when a bar is missed; about six minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from inference_models import TOKENS, random_model, write_llama2c, write_official
from report import machine, write_section

from phi_model import save_checkpoint
from phi_tokenizer import Tokenizer

FOLDER = Path(__file__).parent
LLAMA2C_BARS = {"a": 0.7, "b": 1.0, "c": 1.0}  # ours over llama2.c, one thread each
RWKV_BAR = 2.0  # our RWKV-7 over PyPI rwkv, one thread each
RWKV_AIM = 1.3  # our GPT over our RWKV-7 at a
PREFILL_BAR = 5.0  # over one by one
BATCH_BARS = {"a": 3.0, "b": 4.0}  # 32 streams over one
LOAD_MS, FIRST_TOKEN_MS, MEMORY = 100, 150, 1.2
TIE = 1e-4  # of the largest logit: rounding may then decide
END = "<|endoftext|>"

Results = dict[str, list[float]]


class Worker:
    """A peer in its own process, with so many threads."""

    def __init__(self, threads: int) -> None:
        names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
        self._process = subprocess.Popen(
            [sys.executable, str(FOLDER / "inference_worker.py")],
            env=os.environ | dict.fromkeys(names, str(threads)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def ask(self, **order: str) -> dict[str, Any]:
        """One measurement."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process that measures {order} has died: run it by hand")
        return json.loads(line)

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


class Llama2c:
    """run.c, compiled for one thread or for several."""

    def __init__(self, source: Path, folder: Path, threads: int) -> None:
        self._program, self._folder = folder / f"run{threads}", folder
        self._threads = threads
        openmp = ["-fopenmp"] if threads > 1 else []
        flags = ["-Ofast", "-march=native", *openmp, "-o", str(self._program)]
        subprocess.run(["gcc", *flags, str(source), "-lm"], check=True, stderr=subprocess.DEVNULL)

    def ask(self, model: str) -> dict[str, Any]:
        """Its own count of tokens a second, and its tokens."""
        path = self._folder / f"{model}.bin"
        command = [self._program, path, "-z", path.with_suffix(".tokens"), "-t", "0"]
        done = subprocess.run(
            [*command, "-n", str(TOKENS)], capture_output=True, check=True, text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(self._threads)},
        )  # fmt: skip
        rate = re.search(r"achieved tok/s: ([\d.]+)", done.stderr)
        assert rate
        ids = [int(word) for word in done.stdout.split() if word.isdigit()]
        return {"rate": float(rate[1]), "ids": ids[: TOKENS - 1]}


def main() -> None:
    """Measures everything, prints the tables, judges them."""
    options = arguments()
    models = options.models.split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(models, folder)
        rates, faults = take_turns(options, models, folder)
        starts = measure_start(folder, options.rounds)
    text, missed = report(rates, starts, models)
    missed += sorted(faults)
    text += "\n\nBars missed: " + ("none." if not missed else "\n\n")
    text += "\n".join(f"- {line}" for line in missed)
    print(text)
    if options.write:
        write_section("inference", text)
    sys.exit(1 if missed else 0)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama2c", type=Path, help="run.c of llama2.c, or the folder it is in")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--models", default="a,b,c")
    parser.add_argument("--write", action="store_true", help="put the result into RESULTS.md")
    options = parser.parse_args()
    if options.llama2c and options.llama2c.is_dir():
        options.llama2c /= "run.c"
    return options


def write_models(models: list[str], folder: Path) -> None:
    """The files that the peers read, and a checkpoint of the largest."""
    for name in models:
        model = random_model("gpt", name)
        write_llama2c(model, folder / f"{name}.bin")
        if name != "c":
            write_official(random_model("rwkv7", name), folder / f"rwkv7-{name}.npz")
    text = "Once upon a time there was a bear who liked to sing. " * 20
    tokenizer = Tokenizer.train(text, vocab_size=280, special_tokens=[END])
    model = random_model("gpt", "c")
    save_checkpoint(folder / "c.phi", model, tokenizer=tokenizer.to_bytes())


def take_turns(
    options: argparse.Namespace, models: list[str], folder: Path
) -> tuple[dict[str, float], set[str]]:
    """ "model: what" -> median tokens a second; and whose tokens are not the model's."""
    cores = os.cpu_count() or 1
    workers = {"one": Worker(1), "all": Worker(cores), "torch": Worker(cores), "rwkv": Worker(1)}
    llamas = {
        f"llama2.c, {n} thread{'s' * (n > 1)}": Llama2c(options.llama2c, folder, n)
        for n in ((1, cores) if options.llama2c and cores > 1 else (1,) if options.llama2c else ())
    }
    found: Results = defaultdict(list)
    faults: set[str] = set()
    for model in models:
        jobs = jobs_of(model, workers, llamas, folder)
        texts = {"gpt": Text("gpt", model), "rwkv7": None if model == "c" else Text("rwkv7", model)}
        for turn in range(-1, options.rounds):  # the first is not counted
            order = list(jobs)
            for what in order[turn % len(order) :] + order[: turn % len(order)]:
                answer = jobs[what]()
                if "missing" in answer:
                    continue
                text = texts["rwkv7" if "rwkv" in what else "gpt"]
                if not answer.get("same", True) or not (text and text.is_greedy(answer)):
                    faults.add(f"{model}: {what} says other tokens than the model")
                for key in answer.keys() & {"rate", "one_by_one", "alone"} if turn >= 0 else ():
                    found[f"{model}: {what}" + ("" if key == "rate" else f" {key}")].append(
                        answer[key]
                    )
    for worker in workers.values():
        worker.close()
    return {name: statistics.median(rates) for name, rates in found.items()}, faults


def jobs_of(
    model: str, workers: dict[str, Worker], llamas: dict[str, Llama2c], folder: Path
) -> dict[str, Callable[[], dict[str, Any]]]:
    """What is measured with one model, by name."""
    one, everything = workers["one"], workers["all"]

    def ask(worker: Worker, **order: str) -> Callable[[], dict[str, Any]]:
        return lambda: worker.ask(model=model, **order)

    jobs: dict[str, Callable[[], dict[str, Any]]] = {
        name: lambda llama=llama: llama.ask(model) for name, llama in llamas.items()
    }
    jobs |= {
        "ours, 1 thread": ask(one, what="ours step", kind="gpt"),
        "ours, all threads": ask(everything, what="ours step", kind="gpt"),
        "prefill": ask(everything, what="ours prefill", kind="gpt"),
        "torch eager": ask(workers["torch"], what="torch"),
    }
    if model != "c":
        jobs |= {
            "batch": ask(one, what="ours batch", kind="gpt"),
            "ours rwkv7, 1 thread": ask(one, what="ours step", kind="rwkv7"),
            "PyPI rwkv": ask(workers["rwkv"], what="rwkv", folder=str(folder)),
            "prefill rwkv7": ask(everything, what="ours prefill", kind="rwkv7"),
            "batch rwkv7": ask(one, what="ours batch", kind="rwkv7"),
        }
    return jobs


class Text:
    """Judges greedy tokens by the logits of phi_model's whole sequences."""

    def __init__(self, kind: str, model: str) -> None:
        self._model = random_model(kind, model)
        self._known: set[tuple[int, ...]] = set()

    def is_greedy(self, answer: dict[str, Any]) -> bool:
        """Whether each token was the most probable, or as good as tied with it."""
        ids = tuple(answer.get("ids", ()))
        if not ids or ids in self._known:
            return True
        logits = self._model.logits([1, *ids[:-1]])[0]
        chosen = logits[np.arange(len(ids)), ids]
        if (
            len(ids) < TOKENS - 1
            or (logits.max(axis=1) - chosen).max() > TIE * np.abs(logits).max()
        ):
            return False
        self._known.add(ids)
        return True


def measure_start(folder: Path, rounds: int) -> dict[str, float]:
    """Medians of what inference_start.py says of the largest model.

    Modules are compiled in the first run, which is not counted, as an installation compiles them.
    """
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    answers = []
    for _ in range(rounds + 1):
        command = [sys.executable, str(FOLDER / "inference_start.py"), str(folder / "c.phi")]
        output = subprocess.run(
            [*command, repr(time.time())], check=True, stdout=subprocess.PIPE, text=True,
            env=environment,
        ).stdout  # fmt: skip
        answers.append(json.loads(output))
    del answers[0]["numpy"]
    return {key: statistics.median(answer[key] for answer in answers[1:]) for key in answers[0]}


def report(
    rates: dict[str, float], starts: dict[str, float], models: list[str]
) -> tuple[str, list[str]]:
    """The section of RESULTS.md, and what misses its bar."""
    lines = [
        "## Making text",
        "",
        "`python benchmarks/inference.py --llama2c PATH --write`: tokens a second, float32, one "
        f"text of {TOKENS} greedy tokens, medians; a = 128d 4 layers vocabulary 1024, b = 256d 8 "
        "layers vocabulary 4096, c = 288d 6 layers hidden 768 vocabulary 32,000. The same tokens "
        "from every peer.",
        "",
        f"{machine()}.",
        "",
        "| | " + " | ".join(models) + " |",
        "|---|" + "---|" * len(models),
    ]
    names = list(dict.fromkeys(key.partition(": ")[2] for key in rates))
    for name in sorted(names):
        cells = [rates.get(f"{model}: {name}") for model in models]
        lines.append(f"| {name} | " + " | ".join(f"{r:,.0f}" if r else "-" for r in cells) + " |")
    judged = [*rate_bars(rates, models), *start_bars(starts)]
    lines += ["", "| | measured | bar | |", "|---|---|---|---|"]
    missed = []
    for name, value, bar, at_least, is_aim in judged:
        met = value >= bar if at_least else value <= bar
        word = "at least" if at_least else "at most"
        verdict = "met" if met else "missed"
        lines.append(f"| {name} | {value:.2f} | {word} {bar:g}{' (aim)' * is_aim} | {verdict} |")
        if not met and not is_aim:
            missed.append(f"{name}: {value:.2f}, bar {bar:g}")
    return "\n".join(lines), missed


def rate_bars(
    rates: dict[str, float], models: list[str]
) -> list[tuple[str, float, float, bool, bool]]:
    """(name, measured, bar, at least?, only an aim?) for what was measured."""
    found = []

    def judge(name: str, top: str, bottom: str, bar: float, *, aim: bool = False) -> None:
        if top in rates and bottom in rates:
            found.append((name, rates[top] / rates[bottom], bar, not aim, aim))

    for m in models:
        ours = f"{m}: ours, 1 thread"
        llama = f"{m}: llama2.c, 1 thread"
        judge(f"{m}: step, times llama2.c, one thread each", ours, llama, LLAMA2C_BARS[m])
        rwkv = f"{m}: ours rwkv7, 1 thread"
        judge(f"{m}: RWKV-7 step, times PyPI rwkv", rwkv, f"{m}: PyPI rwkv", RWKV_BAR)
        if m == "a":
            judge("a: GPT step, times RWKV-7 step", ours, rwkv, RWKV_AIM, aim=True)
        for kind in ("", " rwkv7"):
            name = f"{m}: prefill{kind}"
            judge(f"{name}, times one by one", name, f"{name} one_by_one", PREFILL_BAR)
            if m in BATCH_BARS:
                name = f"{m}: batch{kind}"
                judge(f"{name} of 32, times one stream", name, f"{name} alone", BATCH_BARS[m])
    return found


def start_bars(starts: dict[str, float]) -> list[tuple[str, float, float, bool, bool]]:
    """The same for loading c."""
    parts = ("python_ms", "import_ms", "load_ms", "token_ms")
    first, weights = sum(starts[part] for part in parts), starts["weights"]
    return [
        ("c: load(), ms", starts["load_ms"], LOAD_MS, False, False),
        ("c: process start to first token without numpy's import, ms", first, FIRST_TOKEN_MS,
         False, False),
        ("c: private memory after load, times the weights", starts["memory_after_load"] / weights,
         MEMORY, False, False),
        ("c: private memory after a token, times the weights",
         starts["memory_after_token"] / weights, MEMORY, False, False),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
