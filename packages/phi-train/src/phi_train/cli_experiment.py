"""phi-train experiment: what is asked, tried and judged by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phi_train.errors import ConfigError, RunError

if TYPE_CHECKING:
    from phi_train.experiment import Experiment, Session

__all__ = ["experiment_app"]

experiment_app = typer.Typer(
    help="Ask questions as TOML files; train, judge and log the answers.", no_args_is_help=True
)

STOPPED = 130  # as shells expect after Ctrl-C

Folder = Annotated[Path, typer.Option(help="Where the experiments' TOML files are.")]
Work = Annotated[Path, typer.Option(help="Where checkpoints and tokens go.")]
Data = Annotated[str | None, typer.Option(help="Text to train on, over the file's own.")]
Valid = Annotated[str | None, typer.Option(help="Text to measure on, over the file's own.")]
Number = Annotated[int, typer.Option(help="Trials at once, each in a process with one thread.")]
Cluster = Annotated[
    str | None,
    typer.Option(
        help="Address of a Dask scheduler whose workers make the trials (the extra: cluster)."
    ),
]
Seconds = Annotated[float, typer.Option(help="End after so many; the same command goes on.")]
Retry = Annotated[bool, typer.Option("--retry", help="Try again what crashed or was killed.")]
EXPERIMENTS, WORK = Path("experiments"), Path("runs/experiments")


@experiment_app.command(name="list")
def list_(
    folder: Folder = EXPERIMENTS,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Every experiment, its question, and how much of it is done.

    Example: phi-train experiment list
    """
    from phi_train.experiment import find_experiments, results_of  # noqa: PLC0415 (slow to import)

    rows = []
    for experiment in find_experiments(folder):
        done = len(results_of(experiment))
        of = len(experiment.arms) * len(experiment.seeds)
        rows.append({"id": experiment.id, "question": experiment.question, "done": done, "of": of})
    if as_json:
        print(json.dumps({"experiments": rows}))
        return
    if not rows:
        print(f"{folder} holds no experiment: docs/experiments.md tells how to write one")
    width = max((len(str(row["id"])) for row in rows), default=0)
    for row in rows:
        print(f"{row['id']:<{width}}  {row['done']:>4} of {row['of']:<4} {row['question']}")


@experiment_app.command(name="run")
def run(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids, or .toml files.")],
    folder: Folder = EXPERIMENTS,
    work: Work = WORK,
    data: Data = None,
    valid: Valid = None,
    workers: Number = 1,
    cluster: Cluster = None,
    seconds: Seconds = 0.0,
    retry: Retry = False,
) -> None:
    """Train what is missing of these experiments; every result is in the journal at once.

    Ctrl-C saves the trials at work and ends; the same command goes on.

    Example: phi-train experiment run warmup --workers 2
    """
    import time  # noqa: PLC0415

    from phi_train.experiment.experiment import experiment_named  # noqa: PLC0415
    from phi_train.experiment.run import run_study  # noqa: PLC0415

    end = time.monotonic() + seconds
    for experiment in [experiment_named(name, folder) for name in ids]:
        left = end - time.monotonic() if seconds else 0.0
        if seconds and left <= 0:
            print(f"{experiment.id}: no time left; the same command goes on")
            raise typer.Exit
        print(f"{experiment.id}: {experiment.question}", flush=True)
        session = run_study(
            experiment,
            work=work,
            make_workers=_make_workers(workers, cluster),
            seconds=left,
            overrides=_overrides(data, valid),
            retry=retry,
            say=lambda line: print(line, flush=True),
        )
        _end(session, experiment)


@experiment_app.command(name="search")
def search(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="An experiment; without one the builtin search."),
    ] = None,
    folder: Folder = EXPERIMENTS,
    work: Work = WORK,
    data: Data = None,
    valid: Valid = None,
    seconds: Seconds = 0.0,
    trials: Annotated[
        int, typer.Option(help="Changes to try in all; 0: as long as time and budget last.")
    ] = 0,
    strategy: Annotated[
        list[str] | None, typer.Option(help="Of these alone; several times for several.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the builtin search: other draws.")] = 0,
    workers: Number = 2,
    cluster: Cluster = None,
    guard: Annotated[
        bool, typer.Option("--guard", help="Pause while battery, memory or heat are bad.")
    ] = False,
    retry: Retry = False,
) -> None:
    """Look for better settings, by itself: change, train, compare with the noise, keep or not.

    The baseline runs under several seeds first. A change is kept when the
    confidence bound of its paired difference is beyond a threshold, and
    promoted when other seeds and other held-out text say so again.

    Ctrl-C saves the trials at work and writes the report; the same command
    goes on. Without ID, in runs/experiments/search.

    Example: phi-train experiment search --seconds 600
    """
    import time  # noqa: PLC0415

    from phi_train.experiment.ledger import search_ledger  # noqa: PLC0415
    from phi_train.experiment.report import write_report  # noqa: PLC0415
    from phi_train.experiment.run import run_search  # noqa: PLC0415

    started = time.monotonic()
    experiment, overrides = _search_named(
        name, folder, work, _search_settings(trials, strategy, seed), _overrides(data, valid)
    )
    if not experiment.search:
        raise ConfigError(f"{experiment.id} has no table [search]: docs/experiments.md tells more")
    print(f"{experiment.id}: {experiment.question}", flush=True)
    session, plan = run_search(
        experiment,
        work=work,
        make_workers=_make_workers(workers, cluster),
        seconds=max(1.0, seconds - WRITING) if seconds else 0.0,
        overrides={**overrides, **({"guard": True} if guard else {})},
        retry=retry,
        say=lambda line: print(line, flush=True),
    )
    rows = search_ledger(plan)
    pages = write_report(experiment, rows, Path(work) / experiment.id, search=plan)
    decided = sum(row.state != "killed" for row in rows[1:])
    best = plan.best.name if plan.best.number else "the baseline"
    print(
        f"{decided} changes decided, best: {best}; {session.made} trials in "
        f"{time.monotonic() - started:.0f} s\nwrote {pages[0]} and {pages[1]}"
    )
    if rows[0].state in ("diverged", "crashed") or plan.candidates[0].state == "killed":
        raise RunError(
            f"{experiment.id}: its baseline {rows[0].state}, so there is nothing to compare with: "
            f"{rows[0].reason} (--retry tries it again)"
        )
    _end(session, experiment)


WRITING = 5.0  # seconds kept for the trials to save, and for the report


def _search_settings(trials: int, strategy: list[str] | None, seed: int) -> dict[str, Any]:
    settings: dict[str, Any] = {"trials": trials, "strategies": strategy or [], "seed": seed}
    return {name: value for name, value in settings.items() if value}


def _search_named(
    name: str | None,
    folder: Path,
    work: Path,
    settings: dict[str, Any],
    sources: dict[str, str],
    *,
    begin: bool = True,
) -> tuple[Experiment, dict[str, str]]:
    """The experiment of that id, or the builtin search; and which sources still go over it."""
    from dataclasses import replace  # noqa: PLC0415

    from phi_train.experiment.builtin import NAME, builtin_search  # noqa: PLC0415
    from phi_train.experiment.experiment import experiment_named  # noqa: PLC0415

    if name is None or name == NAME:
        return builtin_search(work, settings=settings, sources=sources, begin=begin), {}
    experiment = experiment_named(name, folder)
    return replace(experiment, search={**experiment.search, **settings}), sources


@experiment_app.command(name="grid")
def grid(
    vary: Annotated[
        list[str],
        typer.Option(help="A setting and its values: learning_rate=1e-3,3e-3; for each setting."),
    ],
    data: Annotated[str, typer.Option(help="What to train on.")] = "builtin",
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of settings of phi-train run.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Model. Default gpt-100k.")] = None,
    steps: Annotated[int | None, typer.Option(help="Updates of each run. Default 300.")] = None,
    seeds: Annotated[int, typer.Option(help="Of every combination.")] = 3,
    name: Annotated[str, typer.Option(help="The experiment's id.")] = "grid",
    work: Work = WORK,
    workers: Number = 2,
    cluster: Cluster = None,
    seconds: Seconds = 0.0,
) -> None:
    """Train every combination of some settings, and compare with the first: no file needed.

    It is a study like one from a file; its file and its journal are written
    below runs/experiments, so it goes on, and can be kept.

    Example: phi-train experiment grid --vary learning_rate=1e-3,3e-3 --steps 300
    """
    from phi_train.experiment.grid import grid_file  # noqa: PLC0415
    from phi_train.experiment.report import report_of, write_report  # noqa: PLC0415
    from phi_train.experiment.run import run_study  # noqa: PLC0415

    given = {"data": data, "preset": preset, "steps": steps}
    options = {key: value for key, value in given.items() if value is not None}
    experiment = grid_file(work / name, name, options, vary, seeds=seeds, config=config)
    session = run_study(
        experiment,
        work=work,
        make_workers=_make_workers(workers, cluster),
        seconds=seconds,
        say=lambda line: print(line, flush=True),
    )
    rows, _, _ = report_of(experiment)
    for row in sorted(rows, key=lambda row: (row.value is None, row.value)):
        value = row.reason if row.value is None else f"{row.value:.4f} {experiment.metric}"
        interval = (
            "" if row.low is None else f" ({row.mean:+.4f}, {row.low:+.4f} to {row.high:+.4f})"
        )
        print(f"{row.name}: {value}{interval}, {row.state}")
    pages = write_report(experiment, rows, work / name)
    print(f"wrote {pages[0]} and {pages[1]}")
    _end(session, experiment)


@experiment_app.command(name="report")
def report(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids; search is the builtin.")],
    folder: Folder = EXPERIMENTS,
    work: Work = WORK,
    data: Data = None,
    valid: Valid = None,
    open_final: Annotated[
        bool,
        typer.Option(
            "--open-final",
            help="Test a search's winner on the final text: once, and the search is closed.",
        ),
    ] = False,
    workers: Number = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """One offline HTML page and Markdown: ledger, frontier, effects, and how to repeat each.

    Example: phi-train experiment report warmup
    """
    from phi_train.experiment.report import report_of, write_report  # noqa: PLC0415
    from phi_train.experiment.run import open_final as open_it  # noqa: PLC0415

    printed = []
    for name in ids:
        experiment, overrides = _search_named(
            name, folder, work, {}, _overrides(data, valid), begin=False
        )
        if open_final:
            _end(open_it(experiment, work=work, workers=workers, overrides=overrides), experiment)
        rows, plan, final = report_of(experiment, overrides=overrides)
        pages = write_report(experiment, rows, Path(work) / experiment.id, search=plan, final=final)
        printed.append(
            {
                "id": experiment.id,
                "report": str(pages[0]),
                "markdown": str(pages[1]),
                "ledger": [row.as_dict() for row in rows],
            }
        )
        if not as_json:
            print(f"wrote {pages[0]} and {pages[1]}")
    if as_json:
        print(json.dumps({"experiments": printed}))


def _overrides(data: str | None, valid: str | None) -> dict[str, str]:
    return {k: v for k, v in (("data", data), ("valid", valid)) if v is not None}


def _make_workers(number: int, cluster: str | None) -> Any:
    """Processes here, or those of a Dask scheduler."""
    if cluster is not None:
        from phi_train.experiment.cluster import cluster_workers  # noqa: PLC0415 (an extra)

        return cluster_workers(cluster)
    from phi_train.experiment.run import local_workers  # noqa: PLC0415

    if number < 1:
        raise ConfigError(f"--workers is {number}; it must be 1 or more")
    return local_workers(number)


def _end(session: Session, experiment: Experiment) -> None:
    """Says how it ended, and leaves as shells expect when it was stopped."""
    if session.reason == "done":
        print(f"{experiment.id}: done, {session.made} trials now; {experiment.journal}")
        return
    print(
        f"{experiment.id}: {session.made} trials made, {session.left} begun or next; everything is "
        "saved, the same command goes on"
    )
    raise typer.Exit(STOPPED if session.reason == "stopped" else 0)
