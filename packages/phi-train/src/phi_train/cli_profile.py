"""phi-train profile: where the time of a training step goes."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phi_model import PRESETS, ModelConfig, build_model, load_checkpoint
from phi_train.errors import ConfigError

if TYPE_CHECKING:
    from phi_train.profile import Profile, ProfileRow

__all__ = ["profile"]

HEADS = ("phase", "op", "calls", "ms", "share", "GFLOP/s", "of peak")


def profile(
    checkpoint: Annotated[Path | None, typer.Argument(help="A .phi file.")] = None,
    preset: Annotated[
        str, typer.Option(help=f"Or a new model of this preset: {', '.join(PRESETS)}.")
    ] = "gpt-1m",
    batch_size: Annotated[int, typer.Option(help="Rows of a batch.")] = 4,
    seq_len: Annotated[
        int | None,
        typer.Option(help="Tokens of a row. Default 128, or the checkpoint's own."),
    ] = None,
    optimizer: Annotated[str, typer.Option(help="The optimiser that updates.")] = "schedule-free",
    steps: Annotated[
        int | None, typer.Option(help="Steps to time. Default: about three seconds of them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Time every op of a training step, and hold its products against this machine's best.

    One worker on one BLAS thread computes the whole batch, forward, backward
    and update. A row is an op of all layers together, without the ops that it
    calls; a product with a parameter has the parameter's name, in the backward
    pass once for the gradient by inputs and once for the one by weights. The
    peak is that of a large matrix product, measured after the steps.

    Example: phi-train profile --preset gpt-1m --batch-size 4 --seq-len 128
    """
    from phi_train.profile import profile as measure  # noqa: PLC0415 (for this command)

    for name, value in (("batch-size", batch_size), ("seq-len", seq_len), ("steps", steps)):
        if value is not None and value < 1:
            raise ConfigError(f"--{name} is {value}; it must be 1 or more")
    if checkpoint is not None:
        model = load_checkpoint(checkpoint).build()
    else:
        model = build_model(ModelConfig.preset(preset, seq_len=seq_len or 128))
    found = measure(model, batch_size=batch_size, seq_len=seq_len, optimizer=optimizer, steps=steps)
    what = str(checkpoint) if checkpoint is not None else preset
    if as_json:
        print(json.dumps({"model": what, **asdict(found), "flops": found.flops}))
        return
    length = found.tokens // batch_size
    print(f"{what}, {batch_size} x {length} tokens, one worker, one BLAS thread")
    (_print_rich if sys.stdout.isatty() else _print_plain)(found)
    for line in _summary(found):
        print(line)


def _cells(row: ProfileRow) -> tuple[str, ...]:
    rate = f"{row.flops / row.seconds / 1e9:.1f}" if row.flops else ""
    reached = "" if row.peak_share is None else f"{row.peak_share:.0%}"
    calls = f"{row.calls:.0f}" if row.phase != "other" else ""
    return (
        row.phase,
        row.op,
        calls,
        f"{row.seconds * 1e3:.3f}",
        f"{row.share:.1%}",
        rate,
        reached,
    )


def _print_plain(found: Profile) -> None:
    rows = [HEADS, *(_cells(row) for row in found.rows)]
    widths = [max(len(cells[i]) for cells in rows) for i in range(len(HEADS))]
    for cells in rows:
        print(
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ).rstrip()
        )


def _print_rich(found: Profile) -> None:
    from rich.console import Console  # noqa: PLC0415 (slow to import, for terminals only)
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for i, head in enumerate(HEADS):
        table.add_column(head, justify="left" if i < 2 else "right", no_wrap=i != 1)
    longest = max(row.seconds for row in found.rows)
    before = found.rows[0].phase
    for row in found.rows:
        if row.phase != before:
            table.add_section()
        before = row.phase
        table.add_row(*_cells(row), style="bold" if row.seconds > longest / 2 else None)
    Console(highlight=False).print(table)


def _summary(found: Profile) -> list[str]:
    phases: dict[str, float] = {}
    for row in found.rows:
        phases[row.phase] = phases.get(row.phase, 0.0) + row.share
    parts = ", ".join(f"{phase} {share:.0%}" for phase, share in phases.items())
    rate = found.flops / found.seconds
    return [
        f"a step: {found.seconds * 1e3:.2f} ms ({parts}); "
        f"{found.bare_seconds * 1e3:.2f} ms without the clock, "
        f"{found.tokens / found.bare_seconds:,.0f} tokens/s",
        f"products: {found.flops / 1e9:.3f} GFLOP a step, {rate / 1e9:.1f} GFLOP/s over all of it, "
        f"{rate / found.peak:.0%} of this machine's {found.peak / 1e9:.1f}",
    ]
