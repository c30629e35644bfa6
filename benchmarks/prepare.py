#!/usr/bin/env python3
"""Preparing 2 GB of text: peak memory of all processes together, speed, and opening it again.

    python benchmarks/prepare.py CORPUS.txt [--megabytes 2000] [--write]

CORPUS.txt is repeated with changes, once with its end-of-text marks and once without any, which
makes a single document of all of it. Exits 1 when memory reaches 1 GB. Linux only: the figure is
the sum of the processes' proportional set sizes, read from /proc every 50 ms.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from report import machine, write_section

PROGRAM = Path(sysconfig.get_path("scripts")) / "phi-train"
LIMIT = 1000  # MB
OPEN = "import sys; from phi_train.shards import open_prepared; open_prepared(sys.argv[1])"
MARK = b"<|endoftext|>"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--write", action="store_true", help="into RESULTS.md")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="phi-prepare-") as folder:
        for name, marks in (("many documents", True), ("one document", False)):
            source = Path(folder) / "text.txt"
            _make(source, arguments.corpus.read_bytes(), arguments.megabytes * 10**6, marks)
            rows.append((name, *_measure(source, Path(folder) / "tokens")))
            print(*rows[-1], file=sys.stderr, flush=True)
    lines = [
        machine() + ".",
        "",
        f"A text of {arguments.megabytes:,} MB, a tokenizer of 1,024 tokens learnt from a sample.",
        "",
        "| | peak memory, all processes, MB | seconds | MB/s | seconds a second time | "
        "seconds to open |",
        "|---|---|---|---|---|---|",
    ]
    for name, peak, seconds, again, opened in rows:
        speed = arguments.megabytes / seconds
        cells = f"{peak:.0f} | {seconds:.1f} | {speed:.1f} | {again:.1f} | {opened:.2f}"
        lines.append(f"| {name} | {cells} |")
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        write_section("prepare", f"## Preparing data\n\n{text}")
    return int(max(peak for _, peak, *_ in rows) >= LIMIT)


def _make(path: Path, corpus: bytes, size: int, marks: bool) -> None:
    """Copies of the corpus, each with other words, so that no two documents are the same."""
    if not marks:
        corpus = corpus.replace(MARK, b"")
    with path.open("wb") as file:
        number = 0
        while file.tell() < size:
            number += 1
            copy = corpus.replace(b" the ", b" the %dth " % number)
            file.write(copy[: size - file.tell()])


def _measure(source: Path, out: Path) -> tuple[float, float, float, float]:
    """Peak MB; seconds to prepare, to find it prepared, and to open it."""
    command = [str(PROGRAM), "data", "prepare", str(source), "--out", str(out)]
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0.0
    while child.poll() is None:
        peak = max(peak, sum(map(_megabytes, _family(child.pid))))
        time.sleep(0.05)
    seconds = time.perf_counter() - started
    if child.returncode:
        sys.exit("phi-train data prepare failed")
    again = _seconds(command)
    opened = _seconds([sys.executable, "-c", OPEN, str(out)])
    return peak, seconds, again, opened


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def _family(pid: int) -> list[int]:
    """A process and all that come from it."""
    found = [pid]
    for process in found:  # grows meanwhile
        try:
            for task in os.listdir(f"/proc/{process}/task"):
                path = Path(f"/proc/{process}/task/{task}/children")
                found += map(int, path.read_text().split())
        except OSError:
            continue  # it has ended
    return found


def _megabytes(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000


if __name__ == "__main__":
    sys.exit(main())
