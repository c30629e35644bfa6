"""A recurrent model on sequential streams: its state goes on from step to step and run to run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from phi_model import load_checkpoint
from phi_train import train
from phi_train.batches import SequentialStreams
from phi_train.carried import CarriedState
from phi_train.run_data import open_run_data

RWKV = {"preset": "rwkv7-100k", "batches": "streams", "batch_size": 2, "seq_len": 16}


def _losses(result):
    lines = [json.loads(line) for line in result.folder.metrics.read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("parts", [1, 2])
def test_steps_are_pieces_of_one_long_text(settings, parts):
    """With weights that stand still, the steps' losses are those of each row in one piece."""
    steps, rows = 6, 2
    trained = train(settings("before", **RWKV | {"batches": "random"}, steps=20))
    changes = {"batch_size": rows // parts, "init_from": str(trained.folder.last)}
    config = settings(**RWKV | changes, grad_accum=parts, steps=steps, learning_rate=1e-20)
    result = train(config)
    saved = load_checkpoint(result.folder.last)
    data = open_run_data(config, saved.tokenizer, lambda _: None)
    batches = SequentialStreams(data.train, batch_size=rows, seq_len=16, seed=config.seed)
    assert batches.steps_an_epoch > steps
    pieces = [(*batches(step), batches.resets(step)) for step in range(steps)]
    ids, targets, resets = (np.concatenate(kind, axis=1) for kind in zip(*pieces, strict=True))
    assert resets[:, 1:].any(), "a document begins somewhere inside"
    whole = -saved.build().token_log_probs(ids, targets, reset=resets)
    expected = whole.reshape(rows, steps, 16).mean(axis=(0, 2))
    assert np.allclose(_losses(result), expected, atol=2e-6)
    forgetful = -saved.build().token_log_probs(ids[:, 16:32], targets[:, 16:32])
    assert abs(forgetful.mean() - expected[1]) > 1e-4, "the state makes no difference"


@pytest.mark.parametrize("parts", [1, 2])
def test_a_resume_finds_the_state_again(settings, stop_at, break_at, parts):
    changes = RWKV | {"grad_accum": parts, "steps": 12, "checkpoint_every": 4, "workers": "2"}
    whole = train(settings("whole", **changes))
    train(settings(**changes), progress=stop_at(5))
    with pytest.raises(InterruptedError):
        train(settings(**changes), resume=True, progress=break_at(10))
    result = train(settings(**changes), resume=True)
    assert result.folder.last.read_bytes() == whole.folder.last.read_bytes()
    assert _losses(result) == _losses(whole)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"preset": "rwkv7-100k", "batches": "streams"}, True),
        ({"preset": "rwkv7-100k", "batches": "random"}, False),
        ({"preset": "gpt-1k", "batches": "streams"}, False),
    ],
)
def test_only_a_recurrent_model_on_streams_carries_one(settings, changes, wanted):
    config = settings(**changes, steps=1)
    result = train(config)
    saved = load_checkpoint(result.folder.last)
    assert CarriedState.wanted(saved.build(), config) == wanted
    assert any(name.startswith("stream/") for name in saved.tensors) == wanted
