"""A run as its folder tells it, whether it is finished, under way or was cut short."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phi_model import ModelConfig
from phi_train.report.curve import Curve

__all__ = ["RunRecord", "Sample"]

PARTS = ("data", "model", "forward", "backward", "optimizer")  # of a step, in seconds


@dataclass(frozen=True)
class Sample:
    """Text that the model wrote after `step` updates."""

    step: int
    prompt: str
    text: str


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it. Curves are empty, tables are empty, where nothing was kept."""

    path: Path
    name: str
    config: Mapping[str, Any]
    config_text: str
    environment: Mapping[str, Any]
    model: ModelConfig | None  # None: not a model that this version knows
    workers: int | None
    running: bool
    changed: float | None  # seconds since 1970, of the metrics
    unreadable: int  # lines of the metrics
    columns: Mapping[str, Curve]  # loss, learning_rate, grad_norm, tokens, seconds, ...
    valid: Curve  # held-out loss, on the same slice each time
    valid_tokens: int | None  # of that slice
    samples: tuple[Sample, ...] = ()
    update_ratios: Mapping[str, Curve] = field(default_factory=dict)  # by group of parameters
    final: Mapping[str, Any] = field(default_factory=dict)  # of a finished run
    trouble: str = ""  # where a loss was no number, or what the run itself said

    @property
    def step(self) -> int:
        """The last update recorded."""
        loss = self.columns["loss"]
        return int(loss.steps[-1]) if len(loss) else int(self.final.get("step", 0))

    @property
    def finished(self) -> bool:
        """Whether the run came to its own end."""
        return bool(self.final)

    @property
    def total_steps(self) -> int | None:
        """The budget in updates; None where it is one of seconds or cannot be told."""
        c = self.config
        try:
            per_step = c["batch_size"] * c["seq_len"] * c.get("grad_accum", 1)
            if c.get("seconds"):
                return None
            if c.get("tokens"):
                return max(1, int(c["tokens"] // per_step))
            if c.get("flops"):
                if self.model is None:
                    return None
                flops = self.model.flops_per_token(c["seq_len"]) * per_step
                return max(1, int(c["flops"] // flops))
            return int(c["steps"])
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None

    @property
    def time_shares(self) -> dict[str, float]:
        """Part of a step -> its share of all steps' time; what no part accounts for is "other"."""
        total = float(self.columns["seconds"].values.sum())
        spent = {p: float(c.values.sum()) for p, c in self.columns.items() if p in PARTS}
        if not spent or total <= 0:
            return {}
        spent["other"] = max(0.0, total - sum(spent.values()))
        return {part: seconds / total for part, seconds in spent.items()}

    @property
    def throughput(self) -> Curve:
        """Tokens a second of each step, from one count of tokens to the next."""
        tokens, seconds = self.columns["tokens"], self.columns["seconds"]
        counts = dict(zip(tokens.steps, tokens.values, strict=True))
        points = []
        for step, spent in zip(seconds.steps, seconds.values, strict=True):
            before = counts.get(step - 1, 0.0 if step == 1 else None)
            if step in counts and before is not None and spent > 0:
                points.append((step, (counts[step] - before) / spent))
        return Curve.of(points)
