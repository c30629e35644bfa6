"""What every benchmark shares: where it ran, timing in turns, and its section of RESULTS.md."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = """# Results

Each section is the last output of the command it names. Peers and ours ran in turns in one
process or side by side; figures are medians. Absolute times are this machine's; the ratios are
what to compare.
"""


def machine() -> str:
    """CPU, BLAS kernel, threads and versions, in one line."""
    from threadpoolctl import threadpool_info  # noqa: PLC0415

    blas = [info for info in threadpool_info() if info["user_api"] == "blas"]
    kernels = ", ".join(
        f"{info['internal_api']} {info['version']} ({info.get('architecture', '?')} kernel)"
        for info in blas
    )
    coretype = os.environ.get("OPENBLAS_CORETYPE")
    held = f", OPENBLAS_CORETYPE={coretype}" if coretype else ""
    return (
        f"{_cpu()}, {os.cpu_count()} cores; {kernels}{held}; Python {platform.python_version()}, "
        f"numpy {np.__version__}"
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def in_turns(
    peers: dict[str, Callable[[], object]], *, rounds: int, warm: int = 2, lead: int = 0
) -> dict[str, list[float]]:
    """Seconds of each call, the peers taking turns in every round, in a rotating order.

    lead: untimed calls before each timed one, as in a loop that does nothing else: the caches
    are then the peer's own, and the threads of the peer before have gone to sleep.
    """
    for _ in range(warm):
        for call in peers.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    names = list(peers)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            for _ in range(lead):
                peers[name]()
            start = time.perf_counter()
            peers[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    """The median of each peer."""
    return {name: statistics.median(times) for name, times in seconds.items()}


def write_section(name: str, text: str) -> None:
    """Replaces the section `name` of RESULTS.md, or appends it; the rest stays as it is."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else HEAD
    section = f"{begin}\n{text.strip()}\n{end}"
    if begin in before and end in before:
        start, stop = before.index(begin), before.index(end) + len(end)
        after = before[:start] + section + before[stop:]
    else:
        after = before.rstrip() + "\n\n" + section + "\n"
    RESULTS.write_text(after, encoding="utf-8")
