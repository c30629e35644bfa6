"""Trials of self-improvement: STaR on tasks with exact answers, SPIN on stories of the grammar.

star: a config has a table `star`, the fields of StarConfig but the seed. For each arm of the loop
(base, star-1, few, direct, ...): `NAME/accuracy`, `NAME/sound`, `NAME/events N` and, over the base
on the same tasks, `NAME/gain` with its paired bootstrap interval, `NAME/gain low` and `NAME/gain
high`; of the samples `NAME/samples kept` and `NAME/samples sound`. "chosen" is the iteration that
did best on the development tasks, `chosen` its number; `error_change` is minus its gain, so that
less is better.

spin: the settings of phi-train for the base, which is trained in the trial, and a table `spin` with
the fields of SpinConfig but checkpoint, data, valid and seed. For the base and each iteration:
`NAME/bits_per_byte`, `NAME/told apart`, `NAME/divergence N`, `NAME/distinct N`, `NAME/repetition`,
`NAME/preferred` (not of the base); `real/distinct N` and `real/repetition` of the real texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from phi_model import load_checkpoint
from phi_train import ConfigError, TrainConfig
from phi_train import train as train_base
from phi_train.errors import Stopped
from phi_train.improve.pause import Pause
from phi_train.improve.spin import SpinConfig, run_spin
from phi_train.improve.star import run_star
from phi_train.improve.star_config import StarConfig
from phi_train.progress import Quiet
from phi_train.run_folder import RunFolder

__all__ = ["spin", "spin_figures", "star", "star_figures"]

Stop = Callable[[], bool]

OF_THE_TRIAL = {"checkpoint", "data", "valid", "seed"}  # not given in a page's table `spin`


def star(config: Mapping[str, Any], seed: int, folder: Path, stop: Stop) -> dict[str, Any]:
    """The figures of one STaR experiment; goes on where it was stopped."""
    _refuse_unknown(config, {"star"}, "this trial")
    own = config.get("star", {})
    _refuse_unknown(own, {field.name for field in fields(StarConfig)} - {"seed"}, "StarConfig")
    settings = StarConfig(**{k: _frozen(v) for k, v in own.items()}, seed=seed)
    results = run_star(folder / "star", settings, pause=Pause(stop))
    fits = settings.iterations + (settings.iterations + 2) * settings.comparisons
    steps = settings.base_steps + fits * settings.steps
    return star_figures(results) | _spent(folder / "star" / "base.phi", steps)


def star_figures(results: Mapping[str, Any]) -> dict[str, Any]:
    """results of run_star, flat."""
    best = results["best"]
    names = {name: name for name in results["measured"]}
    names = {name: name.replace(f"majority of {best}", "majority of chosen") for name in names}
    figures: dict[str, Any] = {"chosen": int(best.removeprefix("star-"))}
    for name, own in (*names.items(), (best, "chosen")):
        found = results["measured"][name]
        figures |= {f"{own}/accuracy": found["accuracy"], f"{own}/sound": found["sound"]}
        figures |= {f"{own}/events {n}": share for n, share in found["by_events"].items()}
        gain = results["over_base"].get(name)
        if gain is not None:
            figures[f"{own}/gain"] = gain["mean"]
            figures |= {f"{own}/gain {end}": gain[end] for end in ("low", "high")}
    for name, ways in results["samples"].items():
        for what in ("kept", "sound"):
            figures[f"{name}/samples {what}"] = sum(way[what] for way in ways.values())
    loop = [name for name in names if name == "base" or name.startswith("star-")]
    path = [[float(i), results["measured"][name]["accuracy"]] for i, name in enumerate(loop)]
    return figures | {"error_change": -figures["chosen/gain"], "curves": {"accuracy": path}}


def spin(config: Mapping[str, Any], seed: int, folder: Path, stop: Stop) -> dict[str, Any]:
    """The figures of one SPIN experiment; goes on where it was stopped."""
    known = {field.name for field in fields(TrainConfig)}
    _refuse_unknown(config, known | {"spin"}, "TrainConfig")
    own = {field.name for field in fields(SpinConfig)} - OF_THE_TRIAL
    _refuse_unknown(config.get("spin", {}), own, "SpinConfig")
    given = {k: v for k, v in config.items() if k in known}
    base = TrainConfig.from_dict(given | {"seed": seed, "out": str(folder / "base")})
    checkpoint = _trained(base, stop)
    settings = SpinConfig(
        **config.get("spin", {}),
        checkpoint=str(checkpoint),
        data=base.data,
        valid=base.valid,
        seed=seed,
    )
    results = run_spin(folder / "spin", settings, pause=Pause(stop))
    steps = base.steps + settings.iterations * settings.steps
    return spin_figures(results) | _spent(checkpoint, steps)


def spin_figures(results: Mapping[str, Any]) -> dict[str, Any]:
    """results of run_spin, flat; divergence_change: of pairs, the last iteration less the base."""
    figures: dict[str, Any] = {}
    for name, found in results["measured"].items():
        figures[f"{name}/bits_per_byte"] = found["bits_per_byte"]
        figures[f"{name}/told apart"] = found["classifier"]
        figures[f"{name}/repetition"] = found["repetition"]
        for key in ("divergence", "distinct"):
            figures |= {f"{name}/{key} {n}": value for n, value in found[key].items()}
        if found["preference"] is not None:
            figures[f"{name}/preferred"] = found["preference"]
    base = results["measured"]["base"]
    figures |= {f"real/distinct {n}": value for n, value in base["distinct_real"].items()}
    last = list(results["measured"])[-1]
    change = figures[f"{last}/divergence 2"] - figures["base/divergence 2"]
    return figures | {"real/repetition": base["repetition_real"], "divergence_change": change}


class _Asking(Quiet):
    """Ends a run when it is asked to; it goes on from its last checkpoint."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def step(self, *args: Any, **kwargs: Any) -> None:
        super().step(*args, **kwargs)
        if self._stop():
            raise Stopped


def _trained(settings: TrainConfig, stop: Stop) -> Path:
    """The base's last checkpoint, trained unless it is there from before."""
    folder = RunFolder(settings.out)
    if not folder.final_line():
        result = train_base(settings, resume=True, progress=_Asking(stop))
        if result.evaluation is None:  # a signal ended it
            raise Stopped
    return folder.last


def _spent(checkpoint: Path, steps: int) -> dict[str, int]:
    shape = load_checkpoint(checkpoint).model.config
    return {
        "steps": steps,
        "parameters": shape.n_parameters,
        "non_embedding": shape.n_non_embedding,
    }


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _refuse_unknown(config: Mapping[str, Any], known: set[str], name: str) -> None:
    unknown = sorted(config.keys() - known)
    if unknown:
        raise ConfigError(
            f"{unknown[0]} is no setting of {name}: one of {', '.join(sorted(known))}"
        )
