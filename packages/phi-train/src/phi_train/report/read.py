"""Reads a run's folder with patience: unfinished, cut short or of an older version, it is read.

Raises RunError only where there is nothing that could be a run.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from phi_model import ModelConfig, PhiModelError, load_checkpoint
from phi_tokenizer import Tokenizer, TokenizerError
from phi_train.errors import RunError
from phi_train.json_lines import object_of
from phi_train.report.curve import Curve
from phi_train.report.record import RunRecord, Sample
from phi_train.run_folder import RunFolder

__all__ = ["read_run"]

Line = Mapping[str, Any]


def read_run(folder: str | os.PathLike[str], *, last_bytes: int | None = None) -> RunRecord:
    """The run in `folder`. Raises RunError where there is none.

    last_bytes: how much of the metrics to read, from the end; everything without it.
    """
    files = RunFolder(folder)
    if not files.path.is_dir():
        what = "is a file" if files.path.exists() else "does not exist"
        raise RunError(f"{folder} {what}: name the folder of a run, such as runs/gpt-1m")
    if not (files.config.exists() or files.metrics.exists()):
        raise RunError(
            f"{folder} holds no run (neither config.toml nor metrics.jsonl): name a run's folder"
        )
    text = _text(files.config)
    config = _toml(text)
    lines, unreadable = _lines(_end_of(files.metrics, last_bytes))
    steps = [line for line in lines if _is_number(line.get("loss")) and "step" in line]
    evaluations = [line for line in lines if _is_number(line.get("valid_loss"))]
    return RunRecord(
        path=files.path,
        name=files.path.resolve().name,
        config=config,
        config_text=text,
        environment=_environment(files.path, lines),
        model=_model(config, files.tokenizer),
        workers=_workers(config, files.last),
        running=_is_running(files.path / "run.lock"),
        changed=files.metrics.stat().st_mtime if files.metrics.exists() else None,
        unreadable=unreadable,
        columns=_columns(steps),
        valid=Curve.of((line["step"], line["valid_loss"]) for line in evaluations),
        valid_tokens=evaluations[-1].get("valid_tokens") if evaluations else None,
        samples=_samples(lines),
        update_ratios=_update_ratios(lines),
        final=next((line for line in reversed(lines) if "final_loss" in line), {}),
        trouble=_trouble(lines),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def _end_of(path: Path, last_bytes: int | None) -> str:
    """The whole lines in the last so many bytes; all of the file without a number."""
    if last_bytes is None or not path.exists() or path.stat().st_size <= last_bytes:
        return _text(path)
    with path.open("rb") as file:
        file.seek(-last_bytes, os.SEEK_END)
        file.readline()  # the rest of a line that began before
        return file.read().decode("utf-8", "replace")


def _lines(text: str) -> tuple[list[Line], int]:
    """Every line that is a JSON object with sound steps, and how many are not."""
    found: list[Line] = []
    bad = 0
    for raw in text.splitlines():
        line = object_of(raw)
        step: Any = None if line is None else line.get("step", 0)
        if line is not None and _is_number(step) and math.isfinite(step):
            found.append(line)
        else:
            bad += bool(raw.strip())
    return found, bad


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _columns(steps: list[Line]) -> dict[str, Curve]:
    names = {name for line in steps for name in line} - {"step"}
    names |= {"loss", "learning_rate", "grad_norm", "tokens", "seconds"}
    return {
        name: Curve.of((line["step"], line[name]) for line in steps if _is_number(line.get(name)))
        for name in sorted(names)
    }


def _samples(lines: list[Line]) -> tuple[Sample, ...]:
    return tuple(
        Sample(int(line.get("step", 0)), str(line.get("prompt", "")), line["sample"])
        for line in lines
        if isinstance(line.get("sample"), str)
    )


def _update_ratios(lines: list[Line]) -> dict[str, Curve]:
    points: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        groups = line.get("groups")
        for group, measured in groups.items() if isinstance(groups, dict) else ():
            ratio = measured.get("update_ratio") if isinstance(measured, dict) else None
            if isinstance(ratio, int | float) and "step" in line:
                points.setdefault(str(group), []).append((line["step"], ratio))
    return {group: Curve.of(found) for group, found in points.items()}


def _trouble(lines: list[Line]) -> str:
    for line in lines:
        if line.get("diverged"):
            return str(line["diverged"])
        for name in ("loss", "grad_norm", "valid_loss", "final_loss"):
            if _is_number(line.get(name)) and not math.isfinite(line[name]):
                return f"{name} is no longer finite at step {line.get('step', 0):,.0f}"
    return ""


def _environment(folder: Path, lines: list[Line]) -> dict[str, Any]:
    """environment.json, or the line of the metrics that holds the same."""
    with suppress(ValueError, RecursionError):
        found = json.loads(_text(folder / "environment.json"))
        if isinstance(found, dict):
            return found
    return next((e for line in lines if isinstance(e := line.get("environment"), dict)), {})


def _model(config: Mapping[str, Any], tokenizer: Path) -> ModelConfig | None:
    """The model's shape, with the vocabulary of the run's own tokenizer where there is one."""
    if "preset" not in config:
        return None
    vocab_size = config.get("vocab_size", 1024)
    with suppress(TokenizerError, OSError):
        vocab_size = Tokenizer.load(tokenizer).n_vocab
    changes = {
        "seq_len": config.get("seq_len", 128),
        **config.get("model", {}),
        "vocab_size": vocab_size,
    }
    try:
        return ModelConfig.preset(config["preset"], **changes)
    except (PhiModelError, TypeError):
        return None


def _workers(config: Mapping[str, Any], last: Path) -> int | None:
    """How many workers the run has; `auto` is resolved in its checkpoints."""
    wanted = str(config.get("workers", ""))
    if wanted.isdecimal():
        return int(wanted)
    with suppress(PhiModelError, OSError, TypeError, ValueError):
        return int(load_checkpoint(last, verify=False).metadata["workers"])
    return None


def _is_running(lock: Path) -> bool:
    """Whether the process that the lock names is alive; taking the lock would be in its way."""
    try:
        owner = int(lock.read_text(encoding="ascii"))
        if sys.platform == "win32":  # no signal there asks and does nothing else
            return True
        os.kill(owner, 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return True
