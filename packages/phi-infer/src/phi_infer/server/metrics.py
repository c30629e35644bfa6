"""Counts and times in Prometheus's text format.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from phi_infer.server.engine import Engine

__all__ = ["Histogram", "Metrics"]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Histogram:
    """How many values were at most each bound.

    >>> h = Histogram([1.0])
    >>> h.observe(0.5)
    >>> print("\\n".join(h.lines("wait_seconds")))
    wait_seconds_bucket{le="1.0"} 1
    wait_seconds_bucket{le="+Inf"} 1
    wait_seconds_sum 0.5
    wait_seconds_count 1
    """

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = list(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Counts a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> list[str]:
        """In the text format."""
        lines, total = [], 0
        for bound, count in zip([*self._bounds, "+Inf"], self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{name}_sum {self._sum}", f"{name}_count {total}"]


class Metrics:
    """Of one server. Requests are counted in the event loop, first tokens in the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.requests: Counter[tuple[str, int]] = Counter()  # (path, status)
        self.first_token = Histogram()
        engine.on_first_token = self.first_token.observe

    def text(self) -> str:
        """The whole page."""
        engine, lines = self._engine, []

        def add(name: str, kind: str, help_: str, rows: Sequence[str]) -> None:
            full = f"phi_infer_{name}"
            lines.extend([f"# HELP {full} {help_}", f"# TYPE {full} {kind}"])
            lines.extend(rows)

        def one(name: str, kind: str, help_: str, value: float) -> None:
            add(name, kind, help_, [f"phi_infer_{name} {value}"])

        add(
            "requests_total", "counter", "Requests by path and status.",
            [
                f'phi_infer_requests_total{{path="{path}",status="{status}"}} {count}'
                for (path, status), count in sorted(self.requests.items())
            ],
        )  # fmt: skip
        one("prompt_tokens_total", "counter", "Tokens read.", engine.n_prompt_tokens)
        one("generated_tokens_total", "counter", "Tokens made.", engine.n_tokens)
        one("cancelled_total", "counter", "Texts whose client went away.", engine.n_cancelled)
        one("running", "gauge", "Texts being made.", engine.n_running)
        one("waiting", "gauge", "Texts that wait for a slot.", engine.n_waiting)
        add(
            "time_to_first_token_seconds", "histogram", "From the request to its first token.",
            self.first_token.lines("phi_infer_time_to_first_token_seconds"),
        )  # fmt: skip
        memory = _resident_bytes()
        if memory is not None:
            one("resident_memory_bytes", "gauge", "Memory of the process.", memory)
        return "\n".join(lines) + "\n"


def _resident_bytes() -> int | None:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
