"""Every optimiser in a run: it learns, and stopped or killed it goes on to the same last bit."""

from __future__ import annotations

import json

import numpy as np
import pytest

from phi_model import load_checkpoint
from phi_optim import OPTIMIZERS
from phi_train import ConfigError, RunError, train
from phi_train.evaluate import evaluate
from phi_train.learner import TRAINING
from phi_train.progress import Quiet
from phi_train.run_data import open_run_data


def _weights(result):
    return [path.read_bytes() for path in (result.folder.last, result.folder.best)]


def _losses(result):
    lines = [json.loads(line) for line in result.folder.metrics.read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    "changes",
    [
        *({"optimizer": name} for name in OPTIMIZERS),
        {"ema": 0.8, "optimizer": "adamw"},
        {"ema": 0.8, "optimizer": "muon"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_each_resumes_to_the_last_bit(settings, stop_at, break_at, changes, workers):
    changes = {"workers": workers, "preset": "gpt-10k", **changes}
    whole = train(settings("whole", **changes))
    assert np.mean(_losses(whole)[-4:]) < _losses(whole)[0] - 0.05
    train(settings(**changes), progress=stop_at(5))
    with pytest.raises(InterruptedError):
        train(settings(**changes), resume=True, progress=break_at(14))
    result = train(settings(**changes), resume=True)
    assert _weights(result) == _weights(whole)
    assert _losses(result) == _losses(whole)
    assert result.evaluation == whole.evaluation


def test_an_average_is_what_is_saved_and_evaluated(settings):
    """Schedule-free: last.phi holds the average, and the weights to train on beside it."""
    config = settings(optimizer="schedule-free", steps=20)
    result = train(config)
    saved = load_checkpoint(result.folder.last)
    assert TRAINING in saved.tensors
    data = open_run_data(config, saved.tokenizer, lambda _: None)
    assert evaluate(saved.model, data.valid).loss == result.evaluation.loss
    trained = saved.build()
    trained.parameters.flat[...] = saved.tensors[TRAINING]
    assert evaluate(trained, data.valid).loss != result.evaluation.loss


def test_a_moving_average_by_hand(settings):
    """a <- a + (1 - d) / (1 - d^t) (p - a), from the weights of a run that stops at each step."""
    steps, decay = 6, 0.7
    changes = {"steps": steps, "checkpoint_every": 1, "keep": steps, "schedule": "constant"}
    changes["optimizer"] = "adamw"
    plain = train(settings("plain", **changes))
    average = 0.0
    for step in range(1, steps + 1):
        weights = load_checkpoint(plain.folder.checkpoint(step)).parameters["embedding"]
        average += (1 - decay) / (1 - decay**step) * (weights.astype(np.float64) - average)
    averaged = train(settings("averaged", ema=decay, **changes))
    saved = load_checkpoint(averaged.folder.last)
    np.testing.assert_allclose(saved.parameters["embedding"], average, rtol=0, atol=1e-6)
    last = load_checkpoint(plain.folder.last).build()
    assert np.array_equal(saved.tensors[TRAINING], last.parameters.flat)
    with pytest.raises(ConfigError, match="schedule-free averages the weights by itself"):
        settings(ema=0.9, optimizer="schedule-free")


def test_a_run_keeps_its_optimizer(settings, stop_at):
    train(settings(), progress=stop_at(4))
    with pytest.raises(RunError, match=r"last\.phi was trained with schedule-free, not lion"):
        train(settings(optimizer="lion"), resume=True)


def test_the_optimizers_own_schedule_and_rate(settings):
    result = train(settings(optimizer="schedule-free", warmup_steps=4))
    lines = [json.loads(line) for line in result.folder.metrics.read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if "loss" in line]
    assert rates[-1] == rates[4] == max(rates)
    other = train(settings("other", optimizer="schedule-free", learning_rate=1e-4))
    lines = [json.loads(line) for line in other.folder.metrics.read_text().splitlines()]
    assert max(line["learning_rate"] for line in lines if "loss" in line) == 1e-4


@pytest.mark.parametrize("batches", ["random", "epochs", "streams"])
def test_each_kind_of_batches(settings, stop_at, batches):
    """Stopped, and equal; and other than the other kinds."""
    whole = train(settings("whole", batches=batches, grad_accum=2))
    train(settings(batches=batches, grad_accum=2), progress=stop_at(11))
    result = train(settings(batches=batches, grad_accum=2), resume=True)
    assert _weights(result) == _weights(whole)
    other = {"random": "epochs", "epochs": "streams", "streams": "random"}[batches]
    assert _losses(train(settings("other", batches=other, grad_accum=2))) != _losses(whole)


def test_where_the_time_of_a_step_goes(settings):
    class Watch(Quiet):
        def __init__(self):
            self.parts = []

        def step(self, _step, *, parts, **_rest):
            self.parts.append(parts)

    watch = Watch()
    result = train(settings(preset="gpt-10k", seq_len=64, grad_accum=2), progress=watch)
    lines = [json.loads(line) for line in result.folder.metrics.read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]
    for parts, line in zip(watch.parts, lines, strict=True):
        assert list(parts) == ["data", "forward", "backward", "optimizer"]
        assert all(seconds >= 0 for seconds in parts.values())
        assert parts["forward"] > 0
        assert parts["forward"] + parts["backward"] == pytest.approx(line["model"], abs=2e-6)
        assert sum(parts.values()) <= line["seconds"] + 1e-5


def test_names_that_are_not_there(settings):
    with pytest.raises(ConfigError, match="optimizer is 'adam'; there are adamw"):
        settings(optimizer="adam")
