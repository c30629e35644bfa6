"""phi-train report: a page that shows how a run went."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR...", help="The folder of a run, or of several.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="The page. Default report.html in the run's folder; beside the first of several."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Also print the figures, as one JSON object.")
    ] = False,
) -> None:
    """Write one HTML page that shows a run: works offline, on a phone, in light and dark.

    Loss against the n-grams and the entropy floor, throughput, learning rate,
    gradient norm, samples over time, settings, machine, and the command that
    makes the run again. Several runs are drawn over each other and compared in
    a table. A run still going or cut short is shown as far as it got.

    Example: phi-train report runs/gpt-1m

    Example: phi-train report runs/gpt-1m runs/gpt-1m-2 --output compare.html
    """
    from phi_train.report import read_run, summary, write_page  # noqa: PLC0415 (for this command)

    runs = [read_run(folder) for folder in dict.fromkeys(run_dirs)]
    first = run_dirs[0] if len(runs) == 1 else run_dirs[0].parent
    path = output or first / "report.html"
    write_page(runs, path)
    if as_json:
        print(json.dumps({"report": str(path), "runs": [summary(run) for run in runs]}))
        return
    for run in runs:
        s = summary(run)
        loss = s["final_loss"] if s["final_loss"] is not None else s["valid_loss"]
        said = "nothing held out measured" if loss is None else f"held-out loss {loss:.4f}"
        print(f"{run.path}: {s['state']}, step {s['step']:,}, {said}")
    print(f"wrote {path}")
