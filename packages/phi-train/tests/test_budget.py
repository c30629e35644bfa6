"""Budgets, the learning rate that follows them, and a stopwatch that outlives its process."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

import phi_train.budget
from phi_model import load_checkpoint
from phi_train import TrainConfig, train
from phi_train.budget import Budget, Stopwatch, rate_factor
from phi_train.config import PEAK_RATES


def _log(result, key):
    lines = [json.loads(line) for line in result.folder.metrics.read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def test_shares():
    steps, seconds = Budget(8), Budget(0, seconds=4.0)
    assert [steps.share(n, 99.0) for n in (0, 2, 8, 9)] == [0, 0.25, 1, 1]
    assert [seconds.share(99, t) for t in (0.0, 1.0, 4.0, 5.0)] == [0, 0.25, 1, 1]
    assert [steps.is_used_up(n, 99.0) for n in (0, 7, 8)] == [False, False, True]
    assert [seconds.is_used_up(99, t) for t in (0.0, 3.9, 4.0)] == [False, False, True]


@pytest.mark.parametrize("schedule", ["warmup-stable-decay", "linear", "cosine", "constant"])
def test_the_schedule_follows_the_clock_as_it_follows_steps(schedule):
    """A thousand steps of a second each, either way."""
    config = TrainConfig(data="x", warmup_steps=0, final_rate=0.1)
    steps, seconds = Budget(1000), Budget(0, seconds=1000.0)
    for n in (0, 1, 100, 500, 700, 999):
        by_step = rate_factor(config, schedule, steps, n, 0.0)
        by_clock = rate_factor(config, schedule, seconds, n, float(n))
        assert by_clock == pytest.approx(by_step, abs=3e-3)


def test_a_warm_up_is_counted_in_updates_either_way():
    config = TrainConfig(data="x", warmup_steps=10)
    for budget in (Budget(1000), Budget(0, seconds=1000.0)):
        factors = [rate_factor(config, "constant", budget, n, 0.0) for n in range(12)]
        assert factors == pytest.approx([*(n / 10 for n in range(1, 11)), 1, 1])
    short = [rate_factor(config, "constant", Budget(8), n, 0.0) for n in range(8)]
    assert short == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1])


def test_a_stopwatch_leaves_pauses_out(monkeypatch):
    class Time:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Time()
    monkeypatch.setattr(phi_train.budget, "time", clock)
    watch = Stopwatch(7.0)
    clock.now += 5
    assert watch.elapsed == 7
    watch.start()
    clock.now += 2
    watch.start()
    clock.now += 1
    assert watch.elapsed == 10
    watch.pause()
    clock.now += 50
    assert watch.elapsed == 10
    watch.start()
    clock.now += 1
    assert watch.elapsed == 11


def test_a_run_of_seconds_stopped_and_resumed(settings, stop_at):
    """The time of both sessions together is the budget, and the rate goes on where it was."""
    config = settings(seconds=1.5, schedule="linear", warmup_steps=0, checkpoint_every=0)
    first = train(config, progress=stop_at(20))
    assert not first.finished
    spent = load_checkpoint(first.folder.last).metadata["elapsed"]
    assert 0 < spent < 1.5
    result = train(config, resume=True)
    assert result.finished
    assert result.step > 20
    assert 1.5 <= load_checkpoint(result.folder.last).metadata["elapsed"] < 5
    rates = _log(result, "learning_rate")
    assert rates == sorted(rates, reverse=True)
    assert rates[20] == pytest.approx(result_rate(config, spent), rel=0.05)
    assert rates[-1] < 0.2 * rates[0]
    again = train(config, resume=True)
    assert (again.step, again.evaluation) == (result.step, result.evaluation)


def result_rate(config, elapsed):
    peak = PEAK_RATES[config.optimizer]
    return peak * (1 + (config.final_rate - 1) * elapsed / config.seconds)


def test_a_budget_of_steps_keeps_no_time(settings):
    """Else two equal runs would differ in it."""
    result = train(settings())
    assert "elapsed" not in load_checkpoint(result.folder.last).metadata


def test_patience_ends_a_run(settings, stop_at, listener):
    """A rate that is far too high gets no better; the best is kept, and the run is finished."""
    changes = {
        "learning_rate": 0.3,
        "schedule": "constant",
        "steps": 400,
        "eval_every": 5,
        "checkpoint_every": 7,
        "patience": 3,
    }
    whole = train(settings("whole", **changes), progress=listener)
    assert whole.finished
    losses = _log(whole, "valid_loss")
    (why,) = [line for line in listener.lines if "ended early" in line]
    assert f"3 evaluations without a better one than {min(losses):.4f}" in why
    best = losses.index(min(losses))
    assert len(losses) == best + 1 + 3
    assert whole.step == 5 * len(losses) < 400
    assert load_checkpoint(whole.folder.best).step == 5 * (best + 1)

    config = settings(**changes)
    train(config, progress=stop_at(whole.step - 6))  # with some of the patience gone
    result = train(config, resume=True)
    assert result.step == whole.step
    assert result.folder.last.read_bytes() == whole.folder.last.read_bytes()
    assert train(config, resume=True).step == whole.step
    assert train(replace(config, patience=0, steps=whole.step + 2), resume=True).step > whole.step


def test_the_whole_validation_text_or_a_slice(settings):
    whole = train(settings(eval_tokens=0))
    assert set(_log(whole, "valid_tokens")) == {whole.evaluation.tokens}
    assert _log(whole, "valid_loss")[-1] == pytest.approx(whole.evaluation.loss, rel=1e-12)
    part = train(settings("part", eval_tokens=50))
    assert _log(part, "valid_tokens")[0] == 50
    assert not math.isclose(_log(part, "valid_loss")[-1], part.evaluation.loss, rel_tol=1e-6)


def test_a_slow_machine_is_warm_at_half_of_its_time():
    config = TrainConfig(data="a.txt", seconds=100.0, warmup_steps=100)
    budget = Budget(0, seconds=100.0)
    factors = [rate_factor(config, "constant", budget, n, 10.0 * n) for n in range(10)]
    assert factors[5:] == [1.0] * 5
    assert factors == sorted(factors)
    assert factors[0] == 0.01
