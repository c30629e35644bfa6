"""The final test of a search: what it has chosen, on text and seeds that nothing was chosen by."""

from __future__ import annotations

from phi_train.experiment.outcome import Outcome
from phi_train.experiment.plan import Plan, trial_of
from phi_train.experiment.search import FINAL_SEED, Search
from phi_train.experiment.statistics import Difference, paired_difference
from phi_train.experiment.trial import Trial

__all__ = ["Final"]


class Final(Plan):
    """Baseline and winner under the final seeds, measured on the part "test"."""

    def __init__(self, search: Search) -> None:
        super().__init__()
        self.search = search
        self.seeds = range(FINAL_SEED, FINAL_SEED + search.settings.final_seeds)
        self.arms = [search.candidates[0].arm, search.best.arm]
        self.outcomes: dict[tuple[str, int], Outcome] = {}
        self._trials = [
            trial_of(search.experiment, arm, seed, part="test", overrides=search.overrides)
            for seed in self.seeds
            for arm in self.arms
        ]

    def propose(self) -> Trial | None:
        """The next of the few."""
        n = len(self._proposed)
        return self._trials[n] if n < len(self._trials) else None

    def take(self, trial: Trial, outcome: Outcome) -> None:
        """Remembers it."""
        self.outcomes[trial.arm, trial.seed] = outcome

    @property
    def difference(self) -> Difference | None:
        """Winner over baseline; None until all is measured, or where a run failed."""
        metric = self.search.experiment.metric
        values: list[list[float]] = []
        for arm in self.arms:
            found = [self.outcomes.get((arm.name, seed)) for seed in self.seeds]
            measured = [o.metrics[metric] for o in found if o is not None and metric in o.metrics]
            if len(measured) < len(self.seeds):
                return None
            values.append(measured)
        return paired_difference(values[1], values[0], level=self.search.experiment.error_rate)
