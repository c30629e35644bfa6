"""Which charts a report has, for one run or for several over each other."""

from __future__ import annotations

from collections.abc import Sequence

from phi_train.report.chart import Chart, Level, Series, draw
from phi_train.report.curve import Curve, smooth
from phi_train.report.record import RunRecord
from phi_train.report.summary import baselines, floor_loss

__all__ = ["all_charts", "names_of"]

HELD_OUT = 1  # the second colour, where there is one run


def all_charts(runs: Sequence[RunRecord]) -> str:
    """The figures, HTML; those that no run has anything for are left out."""
    charts = [
        _loss(runs),
        _column(runs, "throughput", "Throughput", "tokens a second", zero=True),
        _column(
            runs,
            "learning_rate",
            "Learning rate",
            "after warm-up and schedule",
            zero=True,
            raw=True,
        ),
        _column(runs, "grad_norm", "Gradient norm", "norm before clipping", log=True),
        *(_update_ratios(run, i, len(runs)) for i, run in enumerate(runs)),
    ]
    return "".join(draw(chart) for chart in charts)


def names_of(runs: Sequence[RunRecord]) -> list[str]:
    """The folders' own names, or their paths where two share a name."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _loss(runs: Sequence[RunRecord]) -> Chart:
    series: list[Series] = []
    for i, (run, name) in enumerate(zip(runs, names_of(runs), strict=True)):
        trained, held_out, of = (0, HELD_OUT, "") if len(runs) == 1 else (i, i, f"{name}: ")
        loss = run.columns["loss"]
        if len(runs) == 1:
            series.append(Series("training, each step", loss, trained, "faint"))
        series += [
            Series(f"{of}training, smoothed", smooth(loss), trained),
            Series(f"{of}held out{_last_of(run)}", _held_out(run), held_out, "dots"),
        ]
    return Chart(
        "loss",
        "Loss",
        "nats a token",
        series,
        _levels(runs),
        log=True,
        log_steps=True,
    )


def _last_of(run: RunRecord) -> str:
    return ", at the end on all of it" if run.finished and len(run.valid) else ""


def _held_out(run: RunRecord) -> Curve:
    """Measured on the way, and at the end on the whole held-out text."""
    points = dict(zip(run.valid.steps, run.valid.values, strict=True))
    if "final_loss" in run.final:
        points[float(run.final.get("step", run.step))] = run.final["final_loss"]
    return Curve.of(points.items())


def _levels(runs: Sequence[RunRecord]) -> list[Level]:
    """n-grams and floor. Where runs differ in them, the best n-gram of each, in its colour."""
    tables = [{name: round(value, 3) for name, value in baselines(run).items()} for run in runs]
    known = [table for table in tables if table]
    alike = all(table == known[0] for table in known)
    found: dict[tuple[str, float], list[int]] = {}
    for i, (run, table) in enumerate(zip(runs, tables, strict=True)):
        best = min(table, key=lambda name: table[name], default=None)
        levels = table if alike or best is None else {best: table[best]}
        if (floor := floor_loss(run)) is not None:
            levels = levels | {"entropy floor": round(floor, 3)}
        for name, value in levels.items():
            found.setdefault((name, value), []).append(i)
    return [
        Level(name, value, colour=whose[0] if len(whose) == 1 < len(runs) and not alike else None)
        for (name, value), whose in found.items()
    ]


def _column(
    runs: Sequence[RunRecord],
    column: str,
    title: str,
    unit: str,
    *,
    log: bool = False,
    zero: bool = False,
    raw: bool = False,
) -> Chart:
    """raw: as it is; otherwise smoothed, and for a single run faintly as it is."""
    series: list[Series] = []
    for i, (run, name) in enumerate(zip(runs, names_of(runs), strict=True)):
        curve = run.throughput if column == "throughput" else run.columns[column]
        if raw or len(runs) == 1:
            label = "each step" if len(runs) == 1 else name
            series.append(Series(label, curve, i, "line" if raw else "faint"))
        if not raw:
            label = "smoothed" if len(runs) == 1 else f"{name}, smoothed"
            series.append(Series(label, smooth(curve), i))
    return Chart(column.replace("_", "-"), title, unit, series, log=log, zero=zero)


def _update_ratios(run: RunRecord, number: int, of: int) -> Chart:
    series = [Series(group, curve, i) for i, (group, curve) in enumerate(run.update_ratios.items())]
    title = "Update to weight" if of == 1 else f"Update to weight: {run.name}"
    unit = "|update| / |weights| of each group; about 0.001 is usual"
    return Chart(f"update-ratio-{number}", title, unit, series, log=True)
