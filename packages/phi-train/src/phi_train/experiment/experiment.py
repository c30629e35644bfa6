"""An experiment: a page of a lab notebook, as a TOML file (docs/experiments.md), read and checked.

id = "warmup"
question = "Does the warm-up matter?"
hypothesis = "No."
success = "The paired difference is beyond 0.01 bits a byte."
[base]
data = "builtin"
[arms.usual]
[arms.none]
warmup_steps = 0
"""

from __future__ import annotations

import itertools
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from phi_train.config import TrainConfig
from phi_train.errors import ConfigError
from phi_train.experiment.canonical import canonical_config, digest

__all__ = [
    "Arm",
    "Experiment",
    "Limits",
    "experiment_named",
    "experiment_of",
    "find_experiments",
    "read_experiment",
    "with_changes",
]

PARTS = ("all", "search", "confirmation")
WORDS = ("id", "question", "hypothesis", "success")  # a page without one of them is no page
TABLES = ("base", "arms", "grid", "budget", "search")
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
JOURNALS = "journal"  # the folder beside the files


@dataclass(frozen=True)
class Arm:
    """One of the things compared: a name, what it changes, and all of its settings."""

    name: str
    changes: Mapping[str, Any]
    config: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an experiment may spend in all; 0: no limit."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    flops: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that decides an experiment. Raises ConfigError for what makes no sense."""

    id: str
    question: str
    hypothesis: str
    success: str
    notes: str = ""
    version: int = 1  # of the code behind it
    metric: str = "bits_per_byte"  # of an outcome; less is better
    threshold: float = 0.01  # the least difference of the metric that matters
    error_rate: float = 0.05  # of a wrong "promote" in the whole experiment
    seeds: tuple[int, ...] = (0, 1, 2)
    held_out: str = "all"  # which part of the held-out text is measured
    share: float = 1.0  # of each run's budget: where a search looked at it
    baseline: str = ""  # an arm's name
    function: str = ""  # "file.py:name", relative to `folder`; empty: phi_train.train
    keep: bool = False  # the folder of each run
    arms: tuple[Arm, ...] = ()
    budget: Limits = Limits()
    search: Mapping[str, Any] = field(default_factory=dict)  # see phi_train.experiment.search
    folder: Path = Path()  # of the TOML file
    journal: Path = Path()

    def __post_init__(self) -> None:
        if not ID.fullmatch(self.id):
            raise ConfigError(f"id is {self.id!r}; it must be letters, digits, - and _")
        if self.held_out not in PARTS:
            raise ConfigError(f"held_out is {self.held_out!r}; there are {', '.join(PARTS)}")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds is {list(self.seeds)}; give different numbers, 0 or more")
        if not 0 < self.error_rate < 1:
            raise ConfigError(f"error_rate is {self.error_rate}; it must be between 0 and 1")
        if not self.threshold >= 0:
            raise ConfigError(f"threshold is {self.threshold}; it must be 0 or more")
        if not 0 < self.share <= 1 or (self.function and self.share != 1):
            raise ConfigError(
                f"share is {self.share}; it must be above 0, at most 1, and 1 of a function"
            )
        names = [arm.name for arm in self.arms]
        if not names:
            raise ConfigError("no arms: an experiment needs [base] at least")
        if self.baseline and self.baseline not in names:
            raise ConfigError(
                f"baseline is {self.baseline!r}, which is no arm; there are {', '.join(names)}"
            )
        self._check_arms()

    def _check_arms(self) -> None:
        seen: dict[str, str] = {}
        for arm in self.arms:
            if "seed" in arm.config:
                raise ConfigError("seed is no setting of an arm: name them all in seeds = [..]")
            if not self.function:
                TrainConfig.from_dict(arm.config)
            key = self.settings(arm)
            if key in seen:
                raise ConfigError(f"the arms {seen[key]!r} and {arm.name!r} have the same settings")
            seen[key] = arm.name

    @property
    def baseline_arm(self) -> Arm:
        """The arm that the others are compared with."""
        return next(arm for arm in self.arms if arm.name == (self.baseline or arm.name))

    def settings(self, arm: Arm) -> str:
        """A hash of what an arm asks for, as the file says it: paths by their names."""
        config = dict(arm.config) if self.function else canonical_config(arm.config)
        looked_at = [] if self.share == 1.0 else [self.share]
        return digest([self.function, self.version, self.held_out, config, *looked_at])


def read_experiment(path: str | os.PathLike[str]) -> Experiment:
    """The experiment in a TOML file. Raises ConfigError, naming the file, for what is wrong."""
    path = Path(path)
    values = _read(path)
    try:
        return experiment_of(values, folder=path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} does not exist: phi-train experiment list tells what does"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from error


def experiment_of(
    values: Mapping[str, Any], *, folder: Path, journal: Path | None = None
) -> Experiment:
    """The experiment that a file's values describe. Raises ConfigError."""
    kinds = {f.name: f.type for f in fields(Experiment)}
    known = [name for name in kinds if name not in ("folder", "journal")] + ["base", "grid"]
    for name in values:
        if name not in known:
            raise ConfigError(f"no key is called {name!r}; there are {', '.join(known)}")
    for name in WORDS:
        if not isinstance(values.get(name), str) or not values[name].strip():
            raise ConfigError(f"{name} is missing: write it down before anything is measured")
    for name in TABLES:
        if not isinstance(values.get(name, {}), dict):
            raise ConfigError(f"{name} is {values[name]!r}; it must be a table")
    given = {k: v for k, v in values.items() if k not in ("base", "arms", "grid", "budget")}
    plain = {name: _checked(name, value, str(kinds[name])) for name, value in given.items()}
    if "base" not in values:
        raise ConfigError("[base] is missing: the settings that every arm shares")
    return Experiment(
        **plain,
        arms=tuple(_arms(values["base"], values.get("arms", {}), values.get("grid", {}))),
        budget=_limits(values.get("budget", {})),
        folder=folder,
        journal=journal or _journal_folder(folder) / f"{values['id']}.jsonl",
    )


def _journal_folder(folder: Path) -> Path:
    """journal/ in the nearest folder above that is called experiments; else in this one."""
    for place in (folder, *folder.parents):
        if place.name == "experiments":
            return place / JOURNALS
    return folder / JOURNALS


def _checked(name: str, value: Any, kind: str) -> Any:
    """A plain value of the type that the field has."""
    if name == "seeds":
        if type(value) is int and value > 0:
            return tuple(range(value))
        if isinstance(value, list) and value and all(type(seed) is int for seed in value):
            return tuple(value)
        raise ConfigError(f"seeds is {value!r}; it must be a number above 0, or a list of them")
    if kind == "float" and type(value) is int:
        value = float(value)
    if kind in ("str", "int", "float", "bool") and type(value).__name__ != kind:
        raise ConfigError(f"{name} is {value!r}; it must be a {kind}")
    return value


def _limits(values: Mapping[str, Any]) -> Limits:
    known = {name: type(value) for name, value in asdict(Limits()).items()}
    clean: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"budget.{name} is unknown; there are {', '.join(known)}")
        if type(value) not in (int, float) or not value >= 0:
            raise ConfigError(f"budget.{name} is {value!r}; it must be a number, 0 or more")
        clean[name] = known[name](value)
    return Limits(**clean)


def _arms(
    base: Mapping[str, Any], arms: Mapping[str, Any], grid: Mapping[str, Any]
) -> Iterator[Arm]:
    """Every arm in every combination of the grid; the base itself where there are none."""
    for name, changes in arms.items():
        if not isinstance(changes, dict):
            raise ConfigError(f"arms.{name} is {changes!r}; it must be a table of changes")
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"grid.{name} is {values!r}; it must be a list of values")
    for own, changes in (arms or {"": {}}).items():
        for combination in itertools.product(*grid.values()):
            point = dict(zip(grid, combination, strict=True))
            parts = [
                own,
                *(f"{k}={v:g}" if type(v) is float else f"{k}={v}" for k, v in point.items()),
            ]
            name = ", ".join(part for part in parts if part) or "base"
            every = {**changes, **point}
            yield Arm(name, every, with_changes(base, every))


def with_changes(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` over it; "model.n_layer", or a table, reaches into a table.

    >>> with_changes({"a": 1, "model": {"x": 1, "y": 2}}, {"model.x": 5})
    {'a': 1, 'model': {'x': 5, 'y': 2}}
    """
    result = {k: dict(v) if isinstance(v, Mapping) else v for k, v in base.items()}
    for name, value in changes.items():
        table, dot, rest = name.partition(".")
        if dot:
            value = {rest: value}  # noqa: PLW2901 (the same thing, written otherwise)
        if isinstance(value, Mapping):
            before = result.get(table, {})
            result[table] = with_changes(before if isinstance(before, Mapping) else {}, value)
        else:
            result[name] = value
    return result


def find_experiments(folder: str | os.PathLike[str] = "experiments") -> list[Experiment]:
    """Every experiment in a folder and below, by id. Raises ConfigError for two with one id.

    Other TOML files, such as the settings of runs, are left aside.
    """
    found: dict[str, Experiment] = {}
    for path in sorted(Path(folder).rglob("*.toml")):
        if not set(WORDS) & set(_read(path)):
            continue
        experiment = read_experiment(path)
        if experiment.id in found:
            raise ConfigError(f"{path}: the id {experiment.id!r} is taken already")
        found[experiment.id] = experiment
    return [found[name] for name in sorted(found)]


def experiment_named(name: str, folder: str | os.PathLike[str]) -> Experiment:
    """By id, or by the path of its file. Raises ConfigError where there is none."""
    if name.endswith(".toml"):
        return read_experiment(name)
    experiments: Sequence[Experiment] = find_experiments(folder)
    for experiment in experiments:
        if experiment.id == name:
            return experiment
    there_are = ", ".join(e.id for e in experiments) or "none"
    raise ConfigError(f"no experiment in {folder} has the id {name!r}; there are {there_are}")
