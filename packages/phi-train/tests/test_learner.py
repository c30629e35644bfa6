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
from phi_train.run_data import open_run_data


def _weights(result):
    return [path.read_bytes() for path in (result.folder.last, result.folder.best)]


def _losses(result):
    lines = [json.loads(line) for line in result.folder.metrics.read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_resumes_to_the_last_bit(settings, stop_at, break_at, optimizer, workers):
    changes = {"optimizer": optimizer, "workers": workers, "preset": "gpt-10k"}
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


def test_a_run_keeps_its_optimizer(settings, stop_at):
    train(settings(), progress=stop_at(4))
    with pytest.raises(RunError, match=r"last\.phi was trained with adamw, not lion"):
        train(settings(optimizer="lion"), resume=True)


def test_the_optimizers_own_schedule_and_rate(settings):
    result = train(settings(optimizer="schedule-free", warmup_steps=4))
    lines = [json.loads(line) for line in result.folder.metrics.read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if "loss" in line]
    assert rates[-1] == rates[4] == max(rates)
    other = train(settings("other", optimizer="schedule-free", learning_rate=1e-4))
    lines = [json.loads(line) for line in other.folder.metrics.read_text().splitlines()]
    assert max(line["learning_rate"] for line in lines if "loss" in line) == 1e-4


def test_names_that_are_not_there(settings):
    with pytest.raises(ConfigError, match="optimizer is 'adam'; there are adamw"):
        settings(optimizer="adam")
