"""phi-train status: what has run, what is running, and how the machine is."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from phi_train.status import Machine

__all__ = ["status"]

RUNS = Path("runs")
HEADS = ("run", "preset", "state", "step", "loss", "best", "final", "changed")


def status(
    runs_dir: Annotated[
        Path, typer.Argument(help="The folder that holds runs, however deep; or a run's own.")
    ] = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """List runs, the latest first, and the state of the machine.

    Losses are nats a token: the training loss now, the best on a slice of the
    held-out text, and the final one on all of it. Battery and temperature need
    an extra: pip install 'phi-train\\[guard]' (on Termux: pkg install termux-api).

    Example: phi-train status runs
    """
    from phi_train.status import find_runs, machine, run_status  # noqa: PLC0415 (for this command)

    nothing_yet = runs_dir == RUNS and not runs_dir.exists()
    runs = [] if nothing_yet else [run_status(run) for run in find_runs(runs_dir)]
    now = machine(runs_dir)
    if as_json:
        print(json.dumps({"runs": runs, "machine": asdict(now)}))
        return
    if runs:
        _print_table([_cells(run) for run in runs])
    else:
        print(f"no runs in {runs_dir} yet: make one with phi-train demo, or phi-train run")
    print()
    for line in _machine_lines(now):
        print(line)


def _cells(run: dict[str, Any]) -> tuple[str, ...]:
    total = run["total_steps"]
    return (
        str(run["run"]),
        run["preset"] if isinstance(run["preset"], str) else "",
        run["state"],
        f"{run['step']:,}" + (f"/{total:,}" if total else ""),
        *(_loss(run[key]) for key in ("train_loss", "best_valid_loss", "final_loss")),
        _ago(run["changed"]),
    )


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _ago(changed: float | None) -> str:
    """How long ago, in the largest unit that fits."""
    if changed is None:
        return ""
    seconds = max(0.0, time.time() - changed)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    table = [HEADS, *rows]
    widths = [max(len(cells[i]) for cells in table) for i in range(len(HEADS))]
    for cells in table:
        columns = (
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        print("  ".join(columns).rstrip())


def _machine_lines(now: Machine) -> list[str]:
    load = "" if now.load is None else f", load {now.load:.2f}"
    lines = [f"cores        {now.cores}{load}"]
    if now.memory is not None:
        free = "" if now.memory_free is None else f"{_gigabytes(now.memory_free)} free of "
        lines.append(f"memory       {free}{_gigabytes(now.memory)}")
    lines.append(f"disk         {_gigabytes(now.disk_free)} free")
    if not now.has_sensors:
        how = "pip install 'phi-train[guard]', on Termux: pkg install termux-api"
        return [*lines, f"battery, temperature   not read: {how}"]
    lines.append(f"battery      {_battery(now)}")
    heat = "not told by this machine" if now.heat is None else f"{now.heat:.0f} C"
    return [*lines, f"temperature  {heat}"]


def _battery(now: Machine) -> str:
    if now.battery is None:
        return "none, or not told by this machine"
    words = f"{now.battery:.0f} %"
    if now.charging is not None:
        words += ", charging" if now.charging else ", not charging"
    return words + ("" if now.battery_heat is None else f", {now.battery_heat:.0f} C")


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
