"""The search: changes proposed, screened by successive halving, judged, confirmed, kept or not.

1. The baseline runs under every search seed, to all of its budget: that is the noise.
2. A change is drawn by one of the strategies from the best config so far, and trained under the
   same seeds to a share of the budget. It goes on to the next share when its paired difference
   is among the best 1/eta of all that came so far (asynchronous successive halving, Li et al.
   2020, arXiv:1810.05934; it never waits for a round to be complete), and is discarded when its
   interval leaves no room for an improvement that matters.
3. At the whole budget it is *keep* when the bound of the interval is beyond the threshold. There
   are two looks, the second with more seeds; each has half of the error rate.
4. What is kept is trained again, with seeds and held-out text that no choice has seen. Test number
   n has the level error_rate / (n (n + 1)): over any number of tests, the chance of a wrong
   *promote* stays below the error rate. What is promoted is what later changes begin with and are
   compared with.

The third part of the held-out text is for the report (`phi_train.experiment.final`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from phi_model import PhiModelError
from phi_train.config import TrainConfig
from phi_train.errors import ConfigError
from phi_train.experiment.candidate import CONFIRMED, EXTENDED, SCREENED, Candidate
from phi_train.experiment.experiment import Arm, Experiment, with_changes
from phi_train.experiment.mutate import STRATEGIES, Parent
from phi_train.experiment.outcome import FINISHED, Outcome
from phi_train.experiment.plan import Plan, Spent, trial_of
from phi_train.experiment.statistics import Difference, paired_difference, spent_level
from phi_train.experiment.trial import Trial

__all__ = ["CONFIRMATION_SEED", "FINAL_SEED", "Search", "SearchSettings"]

CONFIRMATION_SEED, FINAL_SEED = 1000, 2000  # where other seeds begin
DRAWS = 20  # until a strategy gives up
NOISE_SHARE = 0.5  # of the baseline's own deviation: no difference is taken to be surer


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """The table [search]. Raises ConfigError for what makes no sense."""

    strategies: tuple[str, ...] = tuple(STRATEGIES)
    trials: int = 0  # changes to try; 0: as long as the budget lasts
    seed: int = 0  # of the strategies' chance
    seeds: int = 3  # of every change
    more_seeds: int = 2  # where these do not decide
    confirmation_seeds: int = 4
    final_seeds: int = 3
    shares: tuple[float, ...] = (0.25, 0.5, 1.0)  # of the budget, where it is looked at
    eta: int = 2  # one in so many goes on
    ahead: int = 4  # trials proposed before the oldest is known: at least the number of workers

    def __post_init__(self) -> None:
        unknown = [name for name in self.strategies if name not in STRATEGIES]
        if unknown or not self.strategies:
            raise ConfigError(f"search.strategies: {unknown}; there are {', '.join(STRATEGIES)}")
        if min(self.seeds, self.confirmation_seeds, self.final_seeds) < 2:
            raise ConfigError("search needs 2 seeds or more everywhere: one says nothing of noise")
        if min(self.trials, self.more_seeds) < 0 or self.eta < 2 or self.ahead < 1:
            raise ConfigError("search: trials, more_seeds are 0 or more, eta 2, ahead 1 or more")
        rising = all(a < b for a, b in zip(self.shares, self.shares[1:], strict=False))
        if not self.shares or not rising or self.shares[0] <= 0 or self.shares[-1] != 1.0:
            raise ConfigError(f"search.shares is {list(self.shares)}; it must rise to 1.0")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> SearchSettings:
        """From the table of a file; lists for tuples."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(f"search.{unknown[0]} is unknown; there are {', '.join(known)}")
        usual = asdict(cls())
        clean: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        for name, value in clean.items():
            if type(value) is not type(usual[name]):
                raise ConfigError(f"search.{name} is {value!r}; like {usual[name]!r} is wanted")
        return cls(**clean)


class Search(Plan):
    """The plan; candidates[0] is the baseline, and each other's end is in its state."""

    def __init__(
        self, experiment: Experiment, *, overrides: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        if experiment.function:
            raise ConfigError("a search changes settings of phi-train: leave out function")
        self.experiment, self.overrides = experiment, overrides
        self.settings = SearchSettings.of(experiment.search)
        self.window = self.settings.ahead
        self.spent = Spent(experiment.budget)
        base = experiment.baseline_arm
        if base.config.get("seconds"):
            raise ConfigError("a search needs budgets that it can count: steps, tokens or flops")
        self.candidates = [Candidate(0, "baseline", "", base, {}, None)]
        self.best = self.candidates[0]
        self.confirmations = 0
        self.outcomes: dict[tuple[str, int, str, float], Outcome] = {}
        self._seen = {experiment.settings(base)}
        self._asked: set[str] = set()
        self._exhausted = ""  # the config that no strategy could change any more
        self._trials: dict[tuple[str, int, str, float], Trial] = {}
        self.tell: Callable[[Candidate], None] = lambda _: None  # of each judgement

    # what is next

    def propose(self) -> Trial | None:
        """What an open candidate needs, the most advanced first; else a new candidate's."""
        if self.spent.used_up:
            return None
        while True:
            for candidate in sorted(self.candidates, key=_urgency):
                if candidate.is_open and (trial := self._missing(candidate)) is not None:
                    return trial
            if not (self._promote_one(0) or self._new_candidate() or self._promote_one(1)):
                return None

    def _missing(self, candidate: Candidate) -> Trial | None:
        """The first trial for its judgement that nobody has asked for."""
        for place in self._needed(candidate):
            trial = self._trial(place)
            if trial.key not in self._asked:
                self._asked.add(trial.key)
                return trial
        return None

    def _needed(self, candidate: Candidate) -> list[tuple[str, int, str, float]]:
        both = [c for c in (candidate.reference, candidate) if c is not None]
        part, share = "search", self.settings.shares[candidate.stage]
        if candidate.phase == CONFIRMED:
            part = "confirmation"
        return [(c.name, seed, part, share) for seed in self._seeds(candidate) for c in both]

    def _seeds(self, candidate: Candidate) -> range:
        settings = self.settings
        if candidate.phase == CONFIRMED:
            return range(CONFIRMATION_SEED, CONFIRMATION_SEED + settings.confirmation_seeds)
        more = settings.more_seeds if candidate.phase == EXTENDED else 0
        return range(settings.seeds + more)

    def _trial(self, place: tuple[str, int, str, float]) -> Trial:
        if place not in self._trials:
            name, seed, part, share = place
            arm = next(c.arm for c in self.candidates if c.name == name)
            self._trials[place] = trial_of(
                self.experiment, arm, seed, part=part, share=share, overrides=self.overrides
            )
        return self._trials[place]

    # new candidates, and those that go on

    def _promote_one(self, least: int) -> bool:
        """Lets one that waits go on to the next share, if it is among the best of its stage.

        least: how many of a stage go on in any case; 1 when no more changes will come.
        """
        for stage in reversed(range(len(self.settings.shares) - 1)):
            ranked = sorted(
                (c for c in self.candidates if stage in c.over_first),
                key=lambda c: (c.over_first[stage], c.number),
            )
            for candidate in ranked[: max(least, len(ranked) // self.settings.eta)]:
                if candidate.state == "waiting" and candidate.stage == stage:
                    candidate.stage, candidate.state, candidate.reason = stage + 1, "open", ""
                    return True
        return False

    def _new_candidate(self) -> bool:
        baseline, settings = self.candidates[0], self.settings
        number = len(self.candidates)
        if baseline.state != "reference" or self._exhausted == self.best.name:
            return False
        if settings.trials and number > settings.trials:
            return False
        rng = random.Random(f"{settings.seed}/{number}")
        names = list(settings.strategies)
        rng.shuffle(names)
        for strategy in names:
            for _ in range(DRAWS):
                if self._drawn(number, strategy, rng):
                    return True
        self._exhausted = self.best.name
        return False

    def _drawn(self, number: int, strategy: str, rng: random.Random) -> bool:
        """Adds a candidate if this draw gives a config that is possible and new."""
        baseline = self.candidates[0].arm.config
        parent = Parent(TrainConfig.from_dict(self.best.arm.config), self._winners())
        changes = STRATEGIES[strategy](parent, rng)
        if changes is None:
            return False
        whole = strategy == "combine"  # its changes are over the baseline
        complete = dict(changes) if whole else {**self.best.over_baseline, **changes}
        config = with_changes(baseline, complete)
        try:
            shown = TrainConfig.from_dict(config)
            shape = shown.model_config(shown.vocab_size)
        except (ConfigError, PhiModelError):
            return False
        if shown.total_steps(shape) < len(self.settings.shares) * 4:
            return False  # the budget would make a handful of updates
        words = ", ".join(f"{k.removeprefix('model.')} {_short(v)}" for k, v in changes.items())
        arm = Arm(f"{number:03d} {words}", complete, config)
        key = self.experiment.settings(arm)
        if key in self._seen:
            return False
        self._seen.add(key)
        parent_name = self.candidates[0].name if whole else self.best.name
        self.candidates.append(Candidate(number, strategy, parent_name, arm, complete, self.best))
        return True

    def _winners(self) -> list[Mapping[str, Any]]:
        """All changes of what was promoted or kept, the best in the search first."""
        good = [c for c in self.candidates if c.state in ("promote", "keep") and c.screened]
        good.sort(key=lambda c: (c.over_first.get(len(self.settings.shares) - 1, 0.0), c.number))
        return [c.over_baseline for c in good]

    # what comes in

    def take(self, trial: Trial, outcome: Outcome) -> None:
        """Keeps it, and judges every candidate that has all it needs."""
        place = (trial.arm, trial.seed, trial.part, trial.share)
        self.outcomes[place] = outcome
        self.spent.add(outcome, minus=self._stage_before(place))
        for candidate in list(self.candidates):
            if not candidate.is_open:
                continue
            needed = self._needed(candidate)
            found = [self.outcomes.get(place) for place in needed]
            own = [
                o
                for place, o in zip(needed, found, strict=True)
                if o is not None and place[0] == candidate.name
            ]
            failed = next((o for o in own if o.state != FINISHED), None)
            if failed is not None:
                candidate.state, candidate.reason = failed.state, failed.error
                candidate.difference = None
                self.tell(candidate)
            elif all(found):
                self._judge(candidate)
                self.tell(candidate)

    def made_of(self, candidate: Candidate) -> list[Trial]:
        """Its own trials that have an outcome."""
        return [self._trials[place] for place in self.outcomes if place[0] == candidate.name]

    def _stage_before(self, place: tuple[str, int, str, float]) -> Outcome | None:
        name, seed, part, share = place
        earlier = [s for s in self.settings.shares if s < share]
        found = (self.outcomes.get((name, seed, part, s)) for s in reversed(earlier))
        return next((o for o in found if o is not None), None)

    def values(self, candidate: Candidate, part: str, share: float, seeds: range) -> list[float]:
        """The metric under each seed; those that are not known, or failed, as NaN."""
        found = (self.outcomes.get((candidate.name, seed, part, share)) for seed in seeds)
        metric = self.experiment.metric
        return [o.metrics.get(metric, math.nan) if o is not None else math.nan for o in found]

    def difference(
        self, candidate: Candidate, other: Candidate, level: float, *, part: str, seeds: range
    ) -> Difference:
        """Of two at a candidate's share, never surer than the baseline's noise allows."""
        share = self.settings.shares[candidate.stage]
        return paired_difference(
            self.values(candidate, part, share, seeds),
            self.values(other, part, share, seeds),
            level=level,
            least_deviation=NOISE_SHARE * math.sqrt(2) * self.noise(share),
        )

    def noise(self, share: float = 1.0) -> float:
        """The standard deviation of the baseline's metric from seed to seed."""
        values = self.values(self.candidates[0], "search", share, range(self.settings.seeds))
        if not all(map(math.isfinite, values)):
            return 0.0
        mean = math.fsum(values) / len(values)
        return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))

    def _judge(self, candidate: Candidate) -> None:
        last = len(self.settings.shares) - 1
        if candidate.reference is None:
            if candidate.stage < last:
                candidate.stage += 1
            else:
                candidate.state = "reference"
            return
        if candidate.phase == CONFIRMED:
            self._confirm(candidate)
            return
        seeds = self._seeds(candidate)
        looks = 2 if self.settings.more_seeds else 1
        difference = self.difference(
            candidate,
            candidate.reference,
            self.experiment.error_rate / looks,
            part="search",
            seeds=seeds,
        )
        candidate.difference = difference
        first = range(self.settings.seeds)
        candidate.over_first[candidate.stage] = self.difference(
            candidate, self.candidates[0], 0.5, part="search", seeds=first
        ).mean
        least = -self.experiment.threshold
        share = self.settings.shares[candidate.stage]
        if candidate.stage < last:
            if difference.low > least:
                candidate.state = "discard"
                candidate.reason = f"no room for an improvement at {share:.0%} of the budget"
            else:
                candidate.state = "waiting"
                candidate.reason = f"not among the best so far at {share:.0%} of the budget"
            return
        candidate.screened = difference
        if difference.high < least:
            candidate.state, candidate.phase, candidate.reason = "keep", CONFIRMED, ""
            self.confirmations += 1
            candidate.test_number = self.confirmations
        elif difference.low > least:
            candidate.state, candidate.reason = "discard", "not better by as much as matters"
        elif candidate.phase == SCREENED and self.settings.more_seeds:
            candidate.phase = EXTENDED
        else:
            candidate.state = "inconclusive"
            candidate.reason = f"{difference.pairs} seeds do not decide"

    def _confirm(self, candidate: Candidate) -> None:
        assert candidate.reference is not None
        level = spent_level(self.experiment.error_rate, candidate.test_number)
        difference = self.difference(
            candidate,
            candidate.reference,
            level,
            part="confirmation",
            seeds=self._seeds(candidate),
        )
        candidate.difference = difference
        least = -self.experiment.threshold
        which = f"confirmation {candidate.test_number}, level {level:.2g}"
        if difference.high < least:
            candidate.state, candidate.reason = "promote", f"confirmed ({which})"
            at_end = len(self.settings.shares) - 1
            if candidate.over_first[at_end] < self.best.over_first.get(at_end, 0.0):
                self.best = candidate
        elif difference.low > least:
            candidate.state, candidate.reason = "discard", f"not confirmed ({which})"
        else:
            candidate.reason = f"better in the search, open on other seeds and text ({which})"


def _urgency(candidate: Candidate) -> tuple[bool, int, int]:
    """Confirmations first, then those that have come far, then the oldest."""
    return candidate.phase != CONFIRMED, -candidate.stage, candidate.number


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
