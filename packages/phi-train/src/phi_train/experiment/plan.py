"""What is tried next, worked out from what is known, and from nothing else.

A plan proposes trials and takes their outcomes in the order in which it proposed them, whichever
comes in first; a proposal may depend on all outcomes but those of the last `window` proposals. So
the number of workers, their speed and an interruption change when a thing is known, never what is
tried or decided.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from phi_train import __version__
from phi_train.errors import ConfigError
from phi_train.experiment.canonical import canonical_config, digest
from phi_train.experiment.experiment import Arm, Experiment, Limits, with_changes
from phi_train.experiment.held_out import content_of, expanded
from phi_train.experiment.outcome import Outcome
from phi_train.experiment.trial import Trial

__all__ = ["SOURCES", "Plan", "Spent", "Study", "trial_of"]

SOURCES = ("data", "valid", "tokenizer", "init_from")
FAR = 1_000_000


class Spent:
    """Steps, tokens, seconds and FLOPs so far, and which limit they have come to."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.steps = self.tokens = 0
        self.seconds = self.flops = 0.0

    def add(self, outcome: Outcome, *, minus: Outcome | None = None) -> None:
        """One more outcome; minus: an earlier stage of it, which is counted already."""
        for name in ("steps", "tokens", "seconds", "flops"):
            more = getattr(outcome, name) - (getattr(minus, name) if minus is not None else 0)
            setattr(self, name, getattr(self, name) + max(0, more))

    @property
    def used_up(self) -> str:
        """The name of a limit that is reached; empty where there is none."""
        for name in ("steps", "tokens", "seconds", "flops"):
            if 0 < getattr(self.limits, name) <= getattr(self, name):
                return name
        return ""


class Plan(ABC):
    """Proposes, and takes outcomes in the same order."""

    window = 4  # proposals without an outcome

    def __init__(self) -> None:
        self._proposed: list[Trial] = []
        self._taken = 0

    @abstractmethod
    def propose(self) -> Trial | None:
        """The next trial; None where there is none before more is known."""

    @abstractmethod
    def take(self, trial: Trial, outcome: Outcome) -> None:
        """Learns the outcome of the oldest proposal that has none."""

    def open_trials(self, known: Callable[[str], Outcome | None]) -> list[Trial]:
        """What can be made now, the oldest first; known: the outcome of a key, if there is one."""
        while True:
            while len(self._proposed) - self._taken < self.window:
                if (trial := self.propose()) is None:
                    break
                self._proposed.append(trial)
            if self._taken == len(self._proposed):
                return []
            oldest = self._proposed[self._taken]
            if (outcome := known(oldest.key)) is None:
                break
            self._taken += 1
            self.take(oldest, outcome)
        return [t for t in self._proposed[self._taken :] if known(t.key) is None]


def trial_of(
    experiment: Experiment,
    arm: Arm,
    seed: int,
    *,
    part: str = "",
    share: float = 1.0,
    overrides: Mapping[str, Any] | None = None,
) -> Trial:
    """A trial of an arm. Raises DataError where its data is not there.

    overrides: settings that go over the arm's on this machine, such as where the data is.
    """
    config = with_changes(arm.config, overrides or {})
    settings = experiment.settings(arm)
    contents = {}
    for name in SOURCES:
        if isinstance(config.get(name), str) and config[name]:
            try:
                config[name] = expanded(config[name])
            except ConfigError as error:
                raise ConfigError(f"{experiment.id}: {error}, or give --{name}") from error
            contents[name] = content_of(config[name])
    own = dict(config) if experiment.function else canonical_config(config)
    same = {k: v for k, v in own.items() if k not in SOURCES}
    part = part or experiment.held_out
    code = [__version__, experiment.function, experiment.version]
    run = [same, contents, code, seed, part]
    return Trial(
        experiment=experiment.id,
        arm=arm.name,
        config=config,
        seed=seed,
        part=part,
        share=share,
        settings=settings,
        key=digest([*run, share]),
        run=digest(run),
    )


class Study(Plan):
    """Every arm under every seed, the first seed of all arms first: a fixed design."""

    def __init__(
        self, experiment: Experiment, *, overrides: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.trials = [
            trial_of(experiment, arm, seed, share=experiment.share, overrides=overrides)
            for seed in experiment.seeds
            for arm in experiment.arms
        ]
        self.spent = Spent(experiment.budget)
        self.window = FAR if experiment.budget == Limits() else Plan.window

    def propose(self) -> Trial | None:
        """The next of the table, while the budget lasts."""
        if len(self._proposed) == len(self.trials) or self.spent.used_up:
            return None
        return self.trials[len(self._proposed)]

    def take(self, trial: Trial, outcome: Outcome) -> None:  # noqa: ARG002
        """Counts what it took."""
        self.spent.add(outcome)
