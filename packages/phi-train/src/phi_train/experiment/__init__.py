"""Experiments that train, judge and remember by themselves; docs/experiments.md has the rules.

>>> from phi_train.experiment import read_experiment, run_study
>>> run_study(read_experiment("experiments/warmup.toml"))  # doctest: +SKIP
"""

from phi_train.errors import Stopped
from phi_train.experiment.experiment import (
    Arm,
    Experiment,
    Limits,
    find_experiments,
    read_experiment,
)
from phi_train.experiment.journal import Journal, results_of
from phi_train.experiment.outcome import Outcome
from phi_train.experiment.run import Session, run_search, run_study
from phi_train.experiment.statistics import Difference, paired_difference
from phi_train.experiment.trial import Result, Trial

__all__ = [
    "Arm",
    "Difference",
    "Experiment",
    "Journal",
    "Limits",
    "Outcome",
    "Result",
    "Session",
    "Stopped",
    "Trial",
    "find_experiments",
    "paired_difference",
    "read_experiment",
    "results_of",
    "run_search",
    "run_study",
]
