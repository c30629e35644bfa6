"""The judgement: how often it is wrong, that it finds what is there, that order is nothing.

In the short form 500 changes without an effect are judged; PHI_LONG=1 judges 5,000.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from phi_train import ConfigError
from phi_train.experiment import Outcome
from phi_train.experiment.ledger import search_ledger
from phi_train.experiment.mutate import STRATEGIES, Parent
from phi_train.experiment.search import Search, SearchSettings

SEARCHES = 200 if os.environ.get("PHI_LONG", "0") not in ("", "0") else 20
TRIALS = 25


def _states(search):
    return Counter(c.state for c in search.candidates[1:])


@pytest.mark.parametrize(
    ("rate", "threshold", "shares"),
    [(0.05, 0.01, [0.25, 0.5, 1.0]), (0.05, 0.0, [1.0]), (0.2, 0.0, [1.0])],
)
def test_changes_without_an_effect_are_not_promoted(experiment, play, rate, threshold, shares):
    """The whole search many times: as it is, and at its most eager, where every change is judged
    at the end and any improvement counts. The baseline's runs are shared by all changes.

    A keep is wrong with the stated rate at most for each change, a promote for each *search*.
    """
    total: Counter[str] = Counter()
    searches_with_a_promote = 0
    for seed in range(SEARCHES):
        settings = {"threshold": threshold, "error_rate": rate, "shares": shares}
        search = Search(experiment(seed=seed, trials=TRIALS, **settings))
        play(search, seed=seed)
        states = _states(search)
        assert sum(states.values()) == TRIALS
        total += states
        searches_with_a_promote += states["promote"] > 0
    changes = SEARCHES * TRIALS
    assert set(total) <= {"promote", "keep", "waiting", "inconclusive", "discard"}
    assert total["promote"] + total["keep"] <= rate * changes
    assert searches_with_a_promote <= rate * SEARCHES
    assert total["promote"] <= rate * changes


def test_eager_levels_would_fail_that_test(experiment, play, monkeypatch):
    """The test above can fail: without levels, by the sign of the mean alone, it does."""
    monkeypatch.setattr("phi_train.experiment.search.NOISE_SHARE", 0.0)
    monkeypatch.setattr("phi_train.experiment.statistics.t_quantile", lambda *_: 0.0)
    promoted = 0
    for seed in range(6):
        search = Search(experiment(seed=seed, trials=TRIALS, threshold=0.0))
        play(search, seed=seed)
        promoted += _states(search)["promote"] > 0
    assert promoted > 2, "more than one in five searches"


@pytest.mark.parametrize("seed", range(3))
def test_what_is_better_is_found_and_what_is_worse_is_not(experiment, play, seed):
    def effect(name):
        number = 0 if name == "base" else int(name[:3])
        return (0.0, 0.15, -0.15)[number % 3]

    search = Search(experiment(seed=seed, trials=12))
    play(search, seed=seed, effect=effect)
    states = {c.number: c.state for c in search.candidates}
    assert states[2] == "promote", "the first that is better"
    assert search.best.number % 3 == 2
    assert all(states[n] == "discard" for n in (1, 4, 7, 10))
    found = search.candidates[2].difference
    assert found.high < -0.01
    assert found.mean == pytest.approx(-0.15, abs=0.05)


def test_promoted_changes_are_what_later_ones_begin_with(experiment, play):
    search = Search(experiment(trials=10))
    play(search, effect=lambda name: -0.2 if name.startswith("001") else 0.0)
    first = search.candidates[1]
    assert first.state == "promote"
    later = [c for c in search.candidates if c.reference is first]
    assert later
    for candidate in later:
        assert candidate.parent == first.name or candidate.strategy == "combine"
        assert set(first.over_baseline) <= set(candidate.over_baseline)
        assert candidate.difference.mean > 0.1, "compared with the better one, not the baseline"


@pytest.mark.parametrize("seed", range(3))
def test_the_order_in_which_trials_end_changes_nothing(experiment, play, seed):
    def effect(name):
        return -0.05 * (name.startswith(("002", "005", "006")))

    ledgers = []
    for order in (None, *map(random.Random, range(4))):
        search = Search(experiment(seed=seed, trials=15))
        play(search, seed=seed, effect=effect, order=order)
        ledgers.append([row.as_dict() for row in search_ledger(search)])
    assert all(ledger == ledgers[0] for ledger in ledgers)


def test_a_new_start_at_any_moment_changes_nothing(experiment, play):
    whole = Search(experiment(trials=8))
    play(whole)
    expected = [row.as_dict() for row in search_ledger(whole)]
    rng = random.Random(1)
    known: dict[str, Outcome] = {}
    starts = 0
    while True:
        search = Search(experiment(trials=8))  # nothing but the outcomes is left
        before = len(known)
        play(search, known=known, most=rng.randint(1, 9), order=rng)
        starts += 1
        if len(known) == before:
            break
    assert starts > 5
    assert [row.as_dict() for row in search_ledger(search)] == expected


def test_nothing_is_tried_twice(experiment, play):
    search = Search(experiment(trials=60))
    play(search)
    settings = [search.experiment.settings(c.arm) for c in search.candidates]
    assert len(set(settings)) == len(settings) == 61


def test_parts_and_seeds_are_kept_apart(experiment, play):
    search = Search(experiment(trials=10))
    play(search, effect=lambda name: -0.3 * (name != "base"))
    by_part: dict[str, set[int]] = {}
    for _, seed, part, _ in search.outcomes:
        by_part.setdefault(part, set()).add(seed)
    assert set(by_part) == {"search", "confirmation"}, "the final part is not for the search"
    assert not by_part["search"] & by_part["confirmation"]


def test_failed_trials_end_their_change_alone(experiment, play):
    search = Search(experiment(trials=6))
    known: dict[str, Outcome] = {}
    while trials := search.open_trials(known.get):
        for trial in trials:
            state = {"002": "diverged", "004": "crashed", "005": "killed"}.get(trial.arm[:3])
            if state:
                known[trial.key] = Outcome(state=state, error="for a reason")
            else:
                play(search, known=known, most=1)
    states = {c.number: c.state for c in search.candidates}
    assert (states[2], states[4], states[5]) == ("diverged", "crashed", "killed")
    assert search.candidates[4].reason == "for a reason"
    assert all(states[n] not in ("open", "crashed") for n in (1, 3, 6))


def test_a_baseline_that_fails_ends_the_search(experiment):
    search = Search(experiment(trials=6))
    known: dict[str, Outcome] = {}
    while trials := search.open_trials(known.get):
        known[trials[0].key] = Outcome(state="diverged", error="nan")
    assert [row.state for row in search_ledger(search)] == ["diverged"]


@pytest.mark.parametrize("order", [None, 5])
def test_the_budget_in_all(experiment, play, order):
    search = Search(experiment(budget={"steps": 3000}))
    play(search, order=random.Random(order) if order else None)
    assert search.spent.used_up == "steps"
    assert 3000 <= search.spent.steps <= 3000 + 4 * 100
    rows = search_ledger(search)
    assert sum(row.steps for row in rows) == search.spent.steps


def test_halving_spends_less_on_the_many(experiment, play):
    """Of a hundred changes without effect few see their whole budget."""
    search = Search(experiment(trials=40))
    play(search)
    whole = {c.number for c in search.candidates[1:] if c.stage == 2}
    begun = [c for c in search.candidates[1:] if 0 in c.over_first]
    assert len(begun) == 40
    assert len(whole) <= 40 / 2
    best = sorted(begun, key=lambda c: (c.over_first[0], c.number))
    assert any(c.stage > 0 for c in best[:5])


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_offers_something_that_differs(name):
    from phi_train import TrainConfig  # noqa: PLC0415 (for this test)
    from phi_train.experiment.experiment import with_changes  # noqa: PLC0415

    base = {"data": "builtin", "preset": "gpt-100k", "steps": 100, "optimizer": "adamw"}
    parent = Parent(TrainConfig.from_dict(base), [{"clip": 2.0}, {"clip": 3.0, "ema": 0.9}])
    offers = [STRATEGIES[name](parent, random.Random(seed)) for seed in range(40)]
    sound = [offer for offer in offers if offer]
    assert sound
    for offer in sound:
        config = TrainConfig.from_dict(with_changes(base, offer))
        config.model_config(config.vocab_size)
    if name == "combine":
        assert sound[0] == {"clip": 2.0, "ema": 0.9}, "the better one's where both change a thing"
    if name == "seq-len":
        assert all(o["seq_len"] * o["batch_size"] == 128 * 4 for o in sound)


@pytest.mark.parametrize("name", ["combine", "random"])
def test_nothing_is_averaged_twice(name):
    """Schedule-free averages the weights by itself; a config with another average is refused."""
    from phi_train import TrainConfig  # noqa: PLC0415 (for this test)
    from phi_train.experiment.experiment import with_changes  # noqa: PLC0415

    base = {"data": "builtin", "preset": "gpt-100k", "optimizer": "schedule-free"}
    parent = Parent(TrainConfig.from_dict(base), [{"clip": 2.0}, {"clip": 3.0, "ema": 0.9}])
    for seed in range(60):
        TrainConfig.from_dict(with_changes(base, STRATEGIES[name](parent, random.Random(seed))))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"trial": 3}, "search.trial is unknown"),
        ({"seeds": 1}, "needs 2 seeds"),
        ({"strategies": ["luck"]}, "search.strategies"),
        ({"shares": [0.5, 0.25, 1.0]}, "must rise to 1.0"),
        ({"shares": [0.5]}, "must rise to 1.0"),
        ({"eta": 1}, "eta 2"),
        ({"trials": "many"}, "search.trials is 'many'"),
    ],
)
def test_settings_that_make_no_sense(values, words):
    with pytest.raises(ConfigError, match=words):
        SearchSettings.of(values)
