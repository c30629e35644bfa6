"""What a trial came to, as plain values that a line of JSON holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["CRASHED", "DIVERGED", "FINISHED", "KILLED", "Curves", "Outcome"]

Curves = Mapping[str, list[list[float]]]

FINISHED, DIVERGED, CRASHED, KILLED = "finished", "diverged", "crashed", "killed"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One trial's end; seconds, and nothing else, depend on the machine's mood."""

    state: str  # finished, diverged, crashed; killed: its process died again and again
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    flops: float = 0.0
    parameters: int = 0
    non_embedding: int = 0
    error: str = ""  # one line

    def as_dict(self) -> dict[str, Any]:
        """Plain values, those at their defaults left out."""
        usual = asdict(Outcome(state=""))
        return {name: value for name, value in asdict(self).items() if value != usual[name]}
