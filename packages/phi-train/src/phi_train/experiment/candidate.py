"""One change under trial in a search: what it has been through, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from phi_train.experiment.experiment import Arm
from phi_train.experiment.statistics import Difference

__all__ = ["ENDED", "Candidate"]

SCREENED, EXTENDED, CONFIRMED = "search", "more seeds", "confirmation"
ENDED = ("promote", "discard", "inconclusive", "diverged", "crashed", "killed")


@dataclass
class Candidate:
    """state: open, waiting (for a place among the best), keep, or how it ended:

    promote        better in the search, and again on other seeds and other text
    keep           better in the search; the confirmation has not shown it (or not yet)
    inconclusive   neither better nor worse, as far as this many seeds can tell
    discard        not better by as much as matters
    diverged, crashed, killed
    """

    number: int  # 0 is the baseline
    strategy: str
    parent: str
    arm: Arm
    over_baseline: Mapping[str, Any]  # all of its changes
    reference: Candidate | None  # what it is compared with
    state: str = "open"
    reason: str = ""
    stage: int = 0  # which share of the budget
    phase: str = SCREENED
    difference: Difference | None = None  # the last that was judged
    screened: Difference | None = None  # in the search, over all of its budget
    test_number: int = 0  # of confirmations, from 1 on
    over_first: dict[int, float] = field(default_factory=dict)  # stage -> mean over the baseline

    @property
    def name(self) -> str:
        """Of its arm."""
        return self.arm.name

    @property
    def is_open(self) -> bool:
        """Whether it waits for outcomes."""
        return self.state == "open" or (self.state == "keep" and not self.reason)
