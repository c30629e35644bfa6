#!/usr/bin/env python3
"""What it costs to store a model smaller: size, load, speed and loss of each format and dtype.

    pip install threadpoolctl
    python benchmarks/storage.py runs/first/best.phi --text valid.txt [--bytes 20000] [--write]

The model is converted to every format that can hold it. Loading is timed to the first logits; a
file is in the system's cache by then. Tokens a second: one greedy text of 256 tokens. Bits a byte:
the first documents of the text, each read from its start, end tokens included. Files take turns in
every round; figures are medians. Exits 1 when float32 does not come back with the same loss in
every format.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from report import in_turns, machine, medians, write_section

import phi_infer
from phi_infer import FormatError, Generator
from phi_infer.formats import DTYPES, FORMATS, read, write

END_OF_TEXT = "<|endoftext|>"
N_TOKENS = 256
SAME = 1e-5  # bits a byte: sums in another order


def main() -> None:
    """Converts, measures, prints the table, judges it."""
    options = arguments()
    documents = first_documents(options.text, options.bytes)
    with tempfile.TemporaryDirectory() as folder:
        files = convert(options.model, Path(folder))
        loads = medians(
            in_turns(
                {name: lambda path=path: first_logits(path) for name, path in files.items()},
                rounds=options.rounds,
            )
        )
        generators = {name: phi_infer.load(path) for name, path in files.items()}
        rates = {name: [] for name in files}
        for _ in range(options.rounds):
            for name, generator in generators.items():
                rates[name].append(tokens_per_second(generator))
        rows = {
            name: {
                "bytes": size_of(path),
                "load": loads[name],
                "rate": statistics.median(rates[name]),
                "bits": bits_per_byte(generators[name], documents),
            }
            for name, path in files.items()
        }
    text = report(options, rows, sum(len(d.encode()) for d in documents))
    print(text)
    if options.write:
        write_section("storage", text)
    whole = [row["bits"] for name, row in rows.items() if name.endswith("float32")]
    sys.exit(1 if max(whole) - min(whole) > SAME else 0)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a model file, e.g. runs/first/best.phi")
    parser.add_argument("--text", type=Path, required=True, help="documents it was not trained on")
    parser.add_argument("--bytes", type=int, default=20_000, help="of the text, to measure on")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="put the result into RESULTS.md")
    return parser.parse_args()


def first_documents(path: Path, n_bytes: int) -> list[str]:
    """Documents, stripped, that together have about so many bytes."""
    with path.open(encoding="utf-8") as file:
        found = [part.strip() for part in file.read(4 * n_bytes).split(END_OF_TEXT)]
    documents, total = [], 0
    for document in filter(None, found):
        if documents and total >= n_bytes:
            break
        documents.append(document)
        total += len(document.encode())
    return documents


def convert(model: Path, folder: Path) -> dict[str, Path]:
    """The model in every format and dtype that can hold it: name -> file or folder."""
    checkpoint, files = read(model), {}
    for to in FORMATS:
        for dtype in DTYPES:
            target = folder / f"{to}-{dtype}"
            target.mkdir()
            path = target if to == "safetensors" else target / {"llama2c": "model.bin"}.get(to, to)
            try:
                write(checkpoint, path, to, dtype=dtype)
            except FormatError as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            files[f"{to} {dtype}"] = path
    return files


def size_of(path: Path) -> int:
    """Bytes of the file, or of all files in a folder; of llama2.c both."""
    files = path.iterdir() if path.is_dir() else path.parent.iterdir()
    return sum(file.stat().st_size for file in files)


def first_logits(path: Path) -> Any:
    """Loads a model as a user does, to the first token's logits."""
    return phi_infer.load(path).read("").logits


def tokens_per_second(generator: Generator) -> float:
    """Of one greedy text that does not end before its length."""
    end = {generator.tokenizer.eot_token: -100.0}
    start = time.perf_counter()
    made = generator.complete("", max_tokens=N_TOKENS, temperature=0, logit_bias=end)
    return len(made.ids) / (time.perf_counter() - start)


def bits_per_byte(generator: Generator, documents: list[str]) -> float:
    """Over all documents, end tokens included."""
    scores = [generator.score(document, end=True) for document in documents]
    nats = math.fsum(score.nats for score in scores)
    return nats / (math.log(2) * sum(score.n_bytes for score in scores))


def report(options: argparse.Namespace, rows: dict[str, dict[str, float]], n_bytes: int) -> str:
    """The table in Markdown."""
    base = rows["phi float32"]
    config = read(options.model).config
    lines = [
        "## Storage",
        "",
        f"`python benchmarks/storage.py MODEL --text TEXT --bytes {options.bytes} "
        f"--rounds {options.rounds}`; {machine()}.",
        f"A {config.kind} of {config.n_parameters:,} parameters, {n_bytes:,} bytes of text. "
        "Whole files, tokenizer included; load: to the first logits.",
        "",
        "| format | bytes | of float32 | load, ms | tokens/s | bits a byte | more |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        lines.append(
            f"| {name} | {row['bytes']:,} | {row['bytes'] / base['bytes']:.2f} | "
            f"{1e3 * row['load']:.1f} | {row['rate']:,.0f} | {row['bits']:.5f} | "
            f"{row['bits'] - base['bits']:+.5f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
