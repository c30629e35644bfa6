"""One trial: settings, a seed, and how it is told from all others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phi_train.experiment.outcome import Outcome

__all__ = ["Result", "Trial"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is trained, and on which part of the held-out text it is measured.

    key tells equal trials: settings, content of the data, code version, seed, part, share.
    run is the same without the share: what is one run, looked at on its way. settings is without
    what only the machine at hand knows (the data's content), and without the seed.
    """

    experiment: str
    arm: str
    config: Mapping[str, Any]
    seed: int
    part: str = "all"  # of the held-out text: all, search, confirmation, test
    share: float = 1.0  # of its budget, where it is trained in stages
    settings: str = ""
    key: str = ""
    run: str = ""


@dataclass(frozen=True)
class Result:
    """A trial and its outcome."""

    trial: Trial
    outcome: Outcome
