"""Fine-tuning: another run's weights and tokenizer, an optimiser that knows nothing of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from phi_model import ModelConfig, build_model, load_checkpoint, save_checkpoint
from phi_tokenizer import Tokenizer
from phi_train import ConfigError, train
from phi_train.evaluate import evaluate
from phi_train.prepare import prepare
from phi_train.run_data import open_run_data


@pytest.fixture
def base(settings):
    """A model of some other text, wider than the default preset of these tests."""
    return train(settings("base", preset="gpt-10k", seq_len=24, steps=40, learning_rate=0.01))


@pytest.fixture
def own(tmp_path, stories):
    path = tmp_path / "own.txt"
    path.write_text("<|endoftext|>".join(stories(50, seed=3)))
    return str(path)


def _losses(result):
    lines = [json.loads(line) for line in result.folder.metrics.read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_it_begins_with_the_weights(settings, base, own):
    result = train(
        settings(data=own, init_from=str(base.folder.best), learning_rate=1e-12, steps=2)
    )
    before, after = load_checkpoint(base.folder.best), load_checkpoint(result.folder.last)
    assert after.config == before.config
    assert after.tokenizer == before.tokenizer
    for name, weights in before.parameters.items():
        np.testing.assert_allclose(after.parameters[name], weights, atol=1e-9)
    assert after.tensors["optimizer/steps"][0] == 2
    fresh = train(settings("fresh", data=own, preset="gpt-10k", seq_len=24, steps=2))
    assert result.evaluation.loss < fresh.evaluation.loss - 0.3


def test_it_resumes_to_the_last_bit_without_the_first_file(settings, base, own, stop_at):
    changes = {"data": own, "init_from": str(base.folder.last)}
    whole = train(settings("whole", **changes))
    train(settings(**changes), progress=stop_at(10))
    base.folder.last.unlink()
    result = train(settings(**changes), resume=True)
    assert result.folder.last.read_bytes() == whole.folder.last.read_bytes()
    assert train(settings(**changes), resume=True).evaluation == whole.evaluation


def test_from_the_average_of_a_run(settings, own):
    """What is evaluated and saved is what another run begins with."""
    averaged = train(settings("averaged", ema=0.9, optimizer="adamw", preset="gpt-10k", seq_len=24))
    config = settings(data=own, init_from=str(averaged.folder.last), learning_rate=1e-12, steps=1)
    result = train(config)
    data = open_run_data(config, load_checkpoint(averaged.folder.last).tokenizer, lambda _: None)
    saved = load_checkpoint(averaged.folder.last)
    assert result.evaluation.loss == pytest.approx(evaluate(saved.model, data.valid).loss, rel=1e-6)


def test_longer_windows_than_the_model_had(settings, base, own):
    result = train(settings(data=own, init_from=str(base.folder.last), seq_len=40, steps=2))
    assert load_checkpoint(result.folder.last).config.seq_len == 40


def test_prepared_text(settings, base, own, tmp_path, listener):
    """With the checkpoint's tokenizer the shards are used; with another one their text is."""
    losses = []
    for name, options in (
        ("same", {"tokenizer": base.folder.tokenizer}),
        ("other", {"vocab_size": 290}),
    ):
        prepare(own, tmp_path / name, **options)
        changes = {"data": str(tmp_path / name), "init_from": str(base.folder.last)}
        losses.append(_losses(train(settings(f"run-{name}", **changes), progress=listener)))
    assert losses[0] == losses[1]


def test_conflicts(settings, base, own, tmp_path):
    start = str(base.folder.best)
    with pytest.raises(ConfigError, match=r"best\.phi has n_layer 1, the settings say 2: a model"):
        train(settings(data=own, init_from=start, model={"n_layer": 2}))
    with pytest.raises(ConfigError, match="init_from brings its own tokenizer"):
        settings(init_from=start, tokenizer="t.json")
    bare = tmp_path / "bare.phi"
    save_checkpoint(bare, load_checkpoint(start).model)
    with pytest.raises(ConfigError, match=r"bare\.phi holds no tokenizer"):
        train(settings(data=own, init_from=str(bare)))
    with pytest.raises(FileNotFoundError):
        train(settings(data=own, init_from=str(tmp_path / "none.phi")))


def test_a_padded_embedding_is_told(settings, tmp_path):
    model = build_model(ModelConfig.preset("gpt-1k", vocab_size=300))
    tokenizer = Tokenizer.train("one two", vocab_size=257, special_tokens=["<|endoftext|>"])
    save_checkpoint(tmp_path / "padded.phi", model, tokenizer=tokenizer.to_bytes())
    with pytest.raises(ConfigError, match=r"padded\.phi has 300 rows .* tokenizer of 257 tokens"):
        train(settings(init_from=str(tmp_path / "padded.phi")))
    assert not (tmp_path / "run").exists()
