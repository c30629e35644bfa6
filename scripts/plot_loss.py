#!/usr/bin/env python3
"""Draws a run's loss falling through the baselines: python scripts/plot_loss.py RUN_DIR FILE.svg

Reads metrics.jsonl of a finished run; needs matplotlib (pip install matplotlib).
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

INK, QUIET, BLUE, GREEN = "#1b1f24", "#8b949e", "#0969da", "#1a7f37"
SMOOTHING = 0.95


def read(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """(steps, held-out losses, the last line with baselines and floor)."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    final = [line for line in lines if "final_loss" in line]
    if not final:
        raise SystemExit(f"{folder} is not a finished run")
    steps = [line for line in lines if "grad_norm" in line]
    return steps, [line for line in lines if "valid_loss" in line], final[-1]


def levels(final: dict[str, Any]) -> dict[str, float]:
    """name -> nats a token, the floor among them where it is known."""
    found = dict(final["baselines"])
    if final.get("floor") is not None:
        nats = final["floor"] * math.log(2) * final["text_bytes"] / final["valid_tokens"]
        found["the best possible"] = nats
    return found


def smooth(values: list[float]) -> list[float]:
    """An exponential mean without the bias of its start."""
    shown, mean = [], 0.0
    for i, value in enumerate(values, start=1):
        keep = min(SMOOTHING, 1 - 1 / i)
        mean = keep * mean + (1 - keep) * value
        shown.append(mean)
    return shown


def draw(folder: Path, target: Path) -> None:
    """The picture."""
    steps, valid, final = read(folder)
    tokens = [line["tokens"] for line in steps]
    per_step = tokens[0] / steps[0]["step"]
    figure, axes = plt.subplots(figsize=(8, 4.5))
    for name, level in levels(final).items():
        color = GREEN if name == "the best possible" else QUIET
        axes.axhline(level, color=color, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            f"{name}  {level:.2f}",
            (1.01, level),
            xycoords=("axes fraction", "data"),
            va="center",
            color=color,
            fontsize=9,
        )
    axes.plot(tokens, smooth([line["loss"] for line in steps]), color=BLUE, linewidth=1.6)
    axes.plot(
        [line["step"] * per_step for line in valid],
        [line["valid_loss"] for line in valid],
        "o",
        color=BLUE,
        markersize=4,
    )
    axes.set_xscale("log")
    axes.set_xlim(tokens[0], tokens[-1])
    axes.set_ylim(0, None)
    axes.set_xlabel("tokens of training", color=INK)
    axes.set_ylabel("loss, nats a token", color=INK)
    axes.set_title(
        "A GPT learns the builtin stories: training loss (line), held-out loss (dots)",
        fontsize=10,
        color=INK,
        loc="left",
    )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    mpl.rcParams["svg.hashsalt"] = "phi"
    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None, dpi=150)


def main() -> None:
    """Arguments: the run's folder, the picture's file."""
    if len(sys.argv) != 3:
        raise SystemExit("usage: python scripts/plot_loss.py RUN_DIR FILE.svg")
    draw(Path(sys.argv[1]), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
