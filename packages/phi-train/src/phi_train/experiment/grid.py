"""A study from the command line: a few settings, every combination of their values.

>>> parse_vary(["learning_rate=1e-3,3e-3", "optimizer=adamw,lion"])
{'learning_rate': [0.001, 0.003], 'optimizer': ['adamw', 'lion']}
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phi_model.files import atomic_write
from phi_train.config import TrainConfig
from phi_train.errors import ConfigError
from phi_train.experiment.experiment import Experiment, experiment_of, read_experiment
from phi_train.experiment.toml import toml_table, toml_value

__all__ = ["grid_file", "parse_vary"]

USUAL = {"preset": "gpt-100k", "steps": 300, "sample_every": 0, "groups_every": 0}


def parse_vary(words: Sequence[str]) -> dict[str, list[Any]]:
    """Names and lists of values. Raises ConfigError for what is not NAME=VALUE,VALUE."""
    grid: dict[str, list[Any]] = {}
    for word in words:
        name, equals, values = word.partition("=")
        if not name or not equals or not all(values.split(",")):
            raise ConfigError(f"--vary is {word!r}; it must be like learning_rate=1e-3,3e-3")
        grid[name] = [_value(text.strip()) for text in values.split(",")]
    return grid


def _value(text: str) -> Any:
    """A number or a boolean where TOML reads one, else the text."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def grid_file(
    folder: Path,
    name: str,
    options: Mapping[str, Any],
    vary: Sequence[str],
    *,
    seeds: int,
    config: Path | None = None,
) -> Experiment:
    """Writes the study's file into `folder` and reads it. Raises ConfigError."""
    grid = parse_vary(vary)
    settings = TrainConfig.read(config) if config is not None else {}
    base = {**USUAL, **settings, **options}
    for local in ("out", "seed", "workers"):
        base.pop(local, None)
    names = ", ".join(grid)
    page = {
        "id": name,
        "question": f"Which {names} is best?",
        "hypothesis": "Asked from the command line: none was written down.",
        "success": "An interval beyond the threshold.",
        "seeds": seeds,
    }
    experiment_of({**page, "base": base, "grid": grid}, folder=folder)  # before it is written
    lines = [f"{key} = {toml_value(value)}" for key, value in page.items()]
    lines += toml_table("base", base) + toml_table("grid", grid)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    with atomic_write(path) as file:
        file.write(("\n".join(lines) + "\n").encode())
    return read_experiment(path)
