"""The ledger: a row for each thing that was tried, with its interval, in the order of its number.

It is worked out from the outcomes alone, so whoever has the journal has the ledger.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from phi_train.experiment.candidate import CONFIRMED, SCREENED, Candidate
from phi_train.experiment.experiment import Experiment
from phi_train.experiment.journal import results_of
from phi_train.experiment.outcome import CRASHED, DIVERGED, FINISHED, KILLED, Outcome
from phi_train.experiment.search import Search
from phi_train.experiment.statistics import Difference, holm, paired_difference

__all__ = ["CUT_OFF", "NOT_RUN", "STATES", "Row", "search_ledger", "study_ledger"]

STATES = ("baseline", "promote", "keep", "inconclusive", "discard", DIVERGED, CRASHED, KILLED)
NOT_RUN = "not run yet"
CUT_OFF = "cut off by the end of the session; the same command goes on"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One arm or change. Costs are the sums over its seeds; None is not known."""

    name: str
    state: str
    reason: str = ""
    strategy: str = ""
    against: str = ""  # what it is compared with
    share: float = 1.0  # of the budget, when it was last judged
    changes: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    value: float | None = None  # mean metric over the seeds, at the share
    deviation: float | None = None  # from seed to seed
    mean: float | None = None  # of the paired differences, below 0 is better
    low: float | None = None
    high: float | None = None
    level: float | None = None  # 1 - confidence of low to high
    p: float | None = None
    adjusted_p: float | None = None  # for the number of rows (Holm)
    parameters: int = 0
    non_embedding: int = 0
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    flops: float = 0.0
    flops_a_run: float = 0.0
    seconds_a_run: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without what is not known."""
        return {k: v for k, v in asdict(self).items() if v is not None}


def search_ledger(search: Search) -> list[Row]:
    """All of a search, the baseline first."""
    return _adjusted([_row(search, candidate) for candidate in search.candidates])


def _row(search: Search, candidate: Candidate) -> Row:
    state, reason = candidate.state, candidate.reason
    if state == "reference":
        state = "baseline"
    elif state == "waiting":
        state = "inconclusive"
    elif state == "open":
        state, reason = KILLED, CUT_OFF
    elif state == "keep" and not reason:
        reason = "better in the search, not confirmed yet"
    own = {
        place: outcome for place, outcome in search.outcomes.items() if place[0] == candidate.name
    }
    stage = candidate.stage
    if candidate.state == "open" and stage and candidate.phase == SCREENED:
        stage -= 1  # it is on its way: what is known of it is from before
    share = search.settings.shares[stage]
    judged = "confirmation" if candidate.phase == CONFIRMED and candidate.reason else "search"
    last = {seed: o for (_, seed, part, s), o in own.items() if part == judged and s == share}
    seeds = sorted(last)
    return Row(
        name=candidate.name,
        state=state,
        reason=reason,
        strategy=candidate.strategy,
        against=candidate.reference.name if candidate.reference is not None else "",
        share=share,
        changes=candidate.over_baseline,
        config=candidate.arm.config,
        seeds=tuple(seeds),
        **_measured([last[seed] for seed in seeds], search.experiment.metric),
        **_compared(candidate.difference),
        **_spent(_whole_runs(own)),
    )


def _whole_runs(own: Mapping[tuple[str, int, str, float], Outcome]) -> list[Outcome]:
    """The last stage of each run: an earlier one is counted in it."""
    latest: dict[tuple[int, str], tuple[float, Outcome]] = {}
    for (_, seed, part, share), outcome in own.items():
        if share >= latest.get((seed, part), (0.0, outcome))[0]:
            latest[seed, part] = share, outcome
    return [outcome for _, outcome in latest.values()]


def _measured(outcomes: Sequence[Outcome], metric: str) -> dict[str, Any]:
    good = [o for o in outcomes if o.state == FINISHED]
    values = [o.metrics[metric] for o in good]
    if not values:
        return {}
    mean = math.fsum(values) / len(values)
    squares = math.fsum((v - mean) ** 2 for v in values)
    return {
        "value": mean,
        "deviation": math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else None,
        "parameters": good[0].parameters,
        "non_embedding": good[0].non_embedding,
        "flops_a_run": math.fsum(o.flops for o in good) / len(good),
        "seconds_a_run": math.fsum(o.seconds for o in good) / len(good),
    }


def _compared(difference: Difference | None) -> dict[str, Any]:
    if difference is None or not math.isfinite(difference.mean):
        return {}
    known = math.isfinite(difference.low)
    return {
        "mean": difference.mean,
        "low": difference.low if known else None,
        "high": difference.high if known else None,
        "level": difference.level,
        "p": difference.p,
    }


def _spent(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    names = ("steps", "tokens", "seconds", "flops")
    return {name: sum(getattr(o, name) for o in outcomes) for name in names}


def _adjusted(rows: list[Row]) -> list[Row]:
    """The rows with p for their number: how many were looked at counts."""
    known = [row for row in rows if row.p is not None]
    adjusted = dict(zip(map(id, known), holm([row.p or 0.0 for row in known]), strict=True))
    return [Row(**{**vars(row), "adjusted_p": adjusted.get(id(row))}) for row in rows]


def study_ledger(experiment: Experiment) -> list[Row]:
    """An arm a row, compared with the baseline under the seeds that both have.

    The level of each interval is the error rate over the number of comparisons (Bonferroni), so
    all of them hold together. States as in a search, where *keep* is the best there is: a study
    that chooses nothing needs no confirmation.
    """
    results = results_of(experiment)
    baseline = experiment.baseline_arm.name
    by_arm: dict[str, dict[int, Outcome]] = {arm.name: {} for arm in experiment.arms}
    for result in results:
        by_arm[result.trial.arm][result.trial.seed] = result.outcome
    level = experiment.error_rate / max(1, len(experiment.arms) - 1)
    rows = []
    for arm in experiment.arms:
        own, base, metric = by_arm[arm.name], by_arm[baseline], experiment.metric
        difference = None
        if arm.name != baseline:
            pairs = [
                (own[seed].metrics[metric], base[seed].metrics[metric])
                for seed in experiment.seeds
                if seed in own and seed in base
                if own[seed].state == base[seed].state == FINISHED
            ]
            difference = paired_difference(
                [a for a, _ in pairs], [b for _, b in pairs], level=level
            )
        state, reason = _study_state(experiment, list(own.values()), difference)
        rows.append(
            Row(
                name=arm.name,
                state=state,
                reason=reason,
                against="" if arm.name == baseline else baseline,
                share=experiment.share,
                changes=arm.changes,
                config=arm.config,
                seeds=tuple(sorted(own)),
                **_measured(list(own.values()), metric),
                **_compared(difference),
                **_spent(list(own.values())),
            )
        )
    return _adjusted(rows)


def _study_state(
    experiment: Experiment, own: Sequence[Outcome], difference: Difference | None
) -> tuple[str, str]:
    failed = next((o for o in own if o.state != FINISHED), None)
    if failed is not None:
        return failed.state, failed.error
    if not own:
        return KILLED, NOT_RUN
    if difference is None:
        return "baseline", ""
    if len(own) < len(experiment.seeds):
        return "inconclusive", f"{len(own)} of {len(experiment.seeds)} seeds are done"
    return _verdict(experiment, difference)


def _verdict(experiment: Experiment, difference: Difference) -> tuple[str, str]:
    if difference.high < -experiment.threshold:
        return "keep", "better by more than the threshold"
    if difference.low > experiment.threshold:
        return "discard", "worse by more than the threshold"
    if difference.low > -experiment.threshold:
        return "discard", "not better by as much as matters"
    return "inconclusive", f"{difference.pairs} seeds do not decide"
