"""One trial, from its settings to its outcome, in this process: what every worker does.

A trial of phi-train is a run that goes on where it was stopped or killed; a trial of one's own is
a Python function beside the experiment's file. Nothing that goes wrong in a trial leaves here but
Stopped and Ctrl-C: what is wrong with the machine, such as a full disk, stops a trial and is not
its outcome.
"""

from __future__ import annotations

import errno
import importlib.util
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from phi_train.checkpoints import newest_sound
from phi_train.config import TrainConfig
from phi_train.errors import ConfigError, Diverged, RunError, Stopped
from phi_train.evaluate import evaluate
from phi_train.experiment.brake import Brake, Counter, Reached
from phi_train.experiment.canonical import digest
from phi_train.experiment.held_out import expanded, one_at_a_time, prepared_for, stream_of
from phi_train.experiment.outcome import CRASHED, DIVERGED, FINISHED, Curves, Outcome
from phi_train.experiment.trial import Trial
from phi_train.guard import machine_guard
from phi_train.json_lines import whole_objects
from phi_train.loop import train
from phi_train.run_folder import RunFolder

__all__ = ["MOST_POINTS", "Task", "discard", "execute", "load_function", "remove_run"]

MOST_POINTS = 100  # of a curve in the journal
LONGEST_ERROR = 400  # characters
OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
SPENT = ("steps", "tokens", "seconds", "flops", "parameters", "non_embedding")

Stop = Callable[[], bool]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A trial, and where and how it is made on this machine."""

    trial: Trial
    work: str  # the experiment's folder for all that is large
    source: str = ""  # the folder of the TOML file, for a function
    function: str = ""
    metric: str = "bits_per_byte"
    keep: bool = False

    @property
    def folder(self) -> Path:
        """Of the run: the same at every share of its budget."""
        trial = self.trial
        same = [trial.run, trial.settings, trial.seed, trial.part, self.function]
        return Path(self.work) / "trials" / digest(same)


def execute(task: Task, stop: Stop = lambda: False) -> Outcome:
    """The outcome of a trial. Raises Stopped when it was asked to stop, or the disk is full or
    fails, and can go on. The trial's folder stays: see discard().
    """
    started = time.perf_counter()
    try:
        # one thread: as many trials as cores, and the same bits whatever their number
        with threadpool_limits(1), one_at_a_time(task.folder.with_suffix(".lock")):
            outcome = _by_function(task, stop) if task.function else _by_phi_train(task, stop)
    except (Stopped, KeyboardInterrupt):
        raise
    except Diverged as error:
        outcome = _failed(DIVERGED, error, task, started)
    except BaseException as error:
        if trouble := _trouble_of_disk(error):
            raise Stopped(trouble) from error
        outcome = _failed(CRASHED, error, task, started)
    if outcome.state == FINISHED and not math.isfinite(outcome.metrics[task.metric]):
        outcome = replace(outcome, state=DIVERGED, error=f"{task.metric} is not finite", metrics={})
    return outcome


def discard(task: Task, outcome: Outcome) -> None:
    """Removes the run of a trial whose outcome is kept elsewhere, unless it is to be looked at
    again, or may be tried again.
    """
    if task.trial.share == 1.0 and outcome.state in (FINISHED, DIVERGED):
        remove_run(task)


def remove_run(task: Task) -> None:
    """Of a trial that nobody will look at again; not what is to be kept."""
    if not task.keep and task.folder.exists():
        with suppress(OSError), one_at_a_time(task.folder.with_suffix(".lock")):
            _remove(task.folder)


def _remove(folder: Path) -> None:
    """At once, under another name: a kill never leaves a part of a run to go on from."""
    discarded = folder.with_name(f".{folder.name}~")
    shutil.rmtree(discarded, ignore_errors=True)
    if folder.exists():
        folder.replace(discarded)
    for left in folder.parent.glob(".*~"):  # its own, and what a kill has left
        shutil.rmtree(left, ignore_errors=True)


def _trouble_of_disk(error: BaseException | None) -> str:
    """What is wrong with it, by an error or what caused it; else empty."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in OF_THE_DISK:
            return " ".join(str(error).split())[:LONGEST_ERROR]
        error = error.__cause__ or error.__context__
    return ""


def _failed(state: str, error: BaseException, task: Task, started: float) -> Outcome:
    said = error.what if isinstance(error, Diverged) else error
    text = " ".join(f"{type(error).__name__}: {said}".split())[:LONGEST_ERROR]
    text = text.replace(str(task.folder), "the run's folder")
    spent = 0 if task.function else _steps_in(RunFolder(task.folder))
    return Outcome(state=state, error=text, steps=spent, seconds=time.perf_counter() - started)


def _steps_in(folder: RunFolder) -> int:
    lines = whole_objects(folder.metrics)
    return max((int(line.get("step", 0)) for line in lines), default=0)


# a function beside the file


def load_function(folder: Path, name: str) -> Callable[..., Mapping[str, Any]]:
    """The function of "file.py:name". Raises ConfigError where there is none."""
    file, _, attribute = name.rpartition(":")
    path = folder / file
    if not file or not path.is_file():
        raise ConfigError(f"function is {name!r}, but {path} does not exist: give 'file.py:name'")
    spec = importlib.util.spec_from_file_location(f"phi_experiment_{digest(str(path))}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"function is {name!r}, but {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ConfigError(f"function is {name!r}, but {path} defines no function {attribute!r}")
    return function  # type: ignore[no-any-return]


def _by_function(task: Task, stop: Stop) -> Outcome:
    config = {
        name: expanded(value) if name in ("data", "valid") and isinstance(value, str) else value
        for name, value in task.trial.config.items()
    }
    task.folder.mkdir(parents=True, exist_ok=True)
    function = load_function(Path(task.source), task.function)
    started = time.perf_counter()
    found = dict(function(config, task.trial.seed, task.folder, stop))
    spent = {"seconds": time.perf_counter() - started} | {
        name: found.pop(name) for name in SPENT if name in found
    }
    curves = {name: _thinned(points) for name, points in found.pop("curves", {}).items()}
    if task.metric not in found:
        raise ConfigError(f"{task.function} returned no {task.metric!r}, which is the metric")
    metrics = {name: float(value) for name, value in found.items()}
    return Outcome(state=FINISHED, metrics=metrics, curves=curves, **spent)


# a run of phi-train


def _by_phi_train(task: Task, stop: Stop) -> Outcome:
    trial = task.trial
    config = TrainConfig.from_dict({"workers": "1", **trial.config, "seed": trial.seed})
    config = replace(config, data=expanded(config.data), valid=expanded(config.valid))
    config = prepared_for(config, trial.part, Path(task.work) / "data")
    config = replace(config, out=str(task.folder))
    folder = RunFolder(config.out)
    folder.sweep()
    until = _looked_at(config, trial.share)
    saved = _steps_saved(folder)
    if saved is None or 0 < until < saved:  # damaged; or of a later stage that no journal knows
        _remove(folder.path)
        saved = 0
    if until == 0 or saved < until:
        _train(config, until, stop)
    return _measured(config, folder, trial.part)


def _looked_at(config: TrainConfig, share: float) -> int:
    """The step at which a share of the budget is used; 0: the end, whenever that is."""
    if share == 1.0:
        return 0
    if config.seconds:
        raise ConfigError("a budget in seconds has no stages: give steps, tokens or flops")
    shape = config.model_config(config.vocab_size)
    return max(1, round(share * config.total_steps(shape)))


def _steps_saved(folder: RunFolder) -> int | None:
    """Where a resumed run would begin: after a kill that may be later than last.phi. None where no
    checkpoint is sound: a trial is then made anew.
    """
    try:
        found = newest_sound(folder).checkpoint
    except RunError:
        return None
    return found.step if found is not None else 0


def _train(config: TrainConfig, until: int, stop: Stop) -> None:
    counter = Counter()
    guard = machine_guard(config) if config.guard else None
    brake = Brake(counter, until=until, stop=stop, guard=guard)
    try:
        result = train(config, resume=True, progress=counter, guard=brake)
    except Reached:
        return
    if not result.finished:
        raise Stopped


def _measured(config: TrainConfig, folder: RunFolder, part: str) -> Outcome:
    opened = newest_sound(folder).checkpoint
    if opened is None or opened.tokenizer is None:
        raise ConfigError(f"{folder.path} holds no checkpoint with a tokenizer")
    model, shape = opened.model, opened.config
    with np.errstate(all="ignore"):
        found = evaluate(model, stream_of(config, opened.tokenizer, part))
    metrics = {k: float(v) for k, v in found.as_dict().items() if v is not None}
    for name in ("documents", "text_bytes"):
        del metrics[name]
    metrics["measured_tokens"] = metrics.pop("tokens")
    metrics["vocab_size"] = float(shape.vocab_size)
    lines = [line for line in whole_objects(folder.metrics) if line.get("step", 0) <= opened.step]
    metrics |= next((line["baselines"] for line in lines if "baselines" in line), {})
    tokens = opened.step * config.tokens_per_step
    return Outcome(
        state=FINISHED,
        metrics=metrics,
        curves=_curves(lines),
        steps=opened.step,
        tokens=tokens,
        seconds=round(sum(line.get("seconds", 0.0) for line in lines), 3),
        flops=float(tokens * shape.flops_per_token(config.seq_len)),
        parameters=shape.n_parameters,
        non_embedding=shape.n_non_embedding,
    )


def _curves(lines: Sequence[Mapping[str, Any]]) -> Curves:
    """Held-out loss where it was measured, training loss as means of stretches."""
    valid = [[line["step"], line["valid_loss"]] for line in lines if "valid_loss" in line]
    steps = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    curves: dict[str, list[list[float]]] = {}
    if valid:
        curves["valid_loss"] = _thinned(valid)
    if steps:
        stretches = np.array_split(np.array(steps), min(len(steps), MOST_POINTS // 2))
        curves["loss"] = [[float(part[-1, 0]), _short(part[:, 1].mean())] for part in stretches]
    return curves


def _thinned(points: Sequence[Sequence[float]]) -> list[list[float]]:
    """At most MOST_POINTS of them, first and last among them."""
    last, most = len(points) - 1, min(len(points), MOST_POINTS)
    chosen = [round(i * last / max(1, most - 1)) for i in range(most)]
    return [[float(points[i][0]), _short(points[i][1])] for i in chosen]


def _short(value: float) -> float:
    return float(f"{value:.5g}")
