"""Settings: what TOML keeps, and what is refused in one line."""

from __future__ import annotations

import math
import tomllib
from dataclasses import replace

import pytest

from phi_model import ConfigError as ModelConfigError
from phi_model import ModelConfig
from phi_optim import OPTIMIZERS
from phi_train import ConfigError, TrainConfig
from phi_train.config import PEAK_RATES, default_learning_rate


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"learning_rate": 1e-05, "clip": math.inf, "flops": 1e13, "baselines": False},
        {"data": 'a "quoted" \\ path\twith ümlaut 😀', "workers": "2"},
        {"model": {"n_layer": 2, "rope_base": 500.0, "tied_head": False}, "seed": 2**64 - 1},
    ],
)
def test_toml_round_trip(tmp_path, changes):
    config = TrainConfig(**({"data": "stories.txt"} | changes))
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert TrainConfig.from_dict(TrainConfig.read(path)) == config
    assert "model" not in tomllib.loads(config.to_toml()) or changes.get("model")


def test_whole_numbers_are_fine_rates_and_workers():
    config = TrainConfig.from_dict({"data": "x", "learning_rate": 1, "clip": 2, "workers": 3})
    assert (config.learning_rate, config.clip, config.workers) == (1.0, 2.0, "3")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": ""}, "no data: name a text file or a folder with --data"),
        ({"steps": 0}, "steps is 0 and no other budget is set"),
        ({"steps": -5}, "steps is -5; it must be 0 or more"),
        ({"batch_size": 0}, "batch_size is 0; it must be 1 or more"),
        ({"seq_len": -1}, "seq_len is -1"),
        ({"grad_accum": 0}, "grad_accum is 0"),
        ({"eval_every": 0}, "eval_every is 0"),
        ({"tokens": -1}, "tokens is -1"),
        ({"flops": math.nan}, "flops is nan; it must be a finite number"),
        ({"flops": math.inf}, "flops is inf"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"learning_rate": -0.1}, "learning_rate is -0.1"),
        ({"final_rate": math.nan}, "final_rate is nan"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, r"seed is 18446744073709551616; it must be below 2\^64"),
        ({"clip": 0.0}, "clip is 0.0; it must be above 0"),
        ({"clip": math.nan}, "clip is nan"),
        ({"optimizer": "adam"}, "optimizer is 'adam'; there are adamw, "),
        ({"batches": "all"}, "batches is 'all'; there are random, epochs, streams"),
        ({"ema": 1.0}, "ema is 1.0; it must be from 0"),
        ({"beta1": 0.5}, "beta1 and beta2 go together"),
        ({"baseline_order": 6}, "baseline_order is 6; it must be between 1 and 5"),
        ({"seconds": math.nan}, "seconds is nan"),
        ({"keep": 0}, "keep is 0; it must be 1 or more"),
        ({"patience": -1}, "patience is -1"),
        ({"init_from": "a.phi", "tokenizer": "t.json"}, "init_from brings its own tokenizer"),
        ({"schedule": "step"}, "schedule is 'step'; there are warmup-stable-decay"),
        ({"workers": "many"}, "workers is 'many'; it must be 'auto', or 1 or more"),
        ({"workers": "0"}, "workers is '0'"),
    ],
)
def test_senseless_settings(changes, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**({"data": "x"} | changes))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "no data"),
        ({"data": "x", "stepps": 3}, r"no setting is called 'stepps'; did you mean 'steps'\?"),
        ({"data": "x", "zzz": 3}, "no setting is called 'zzz'; there are .*steps"),
        ({"data": "x", "steps": "3"}, "steps is '3'; it must be a whole number"),
        ({"data": "x", "steps": 3.0}, "steps is 3.0"),
        ({"data": "x", "baselines": 1}, "baselines is 1; it must be true or false"),
        ({"data": "x", "steps": True}, "steps is True"),
        ({"data": 3}, "data is 3; it must be text"),
        ({"data": "x", "model": 3}, "model is 3; it must be a table"),
    ],
)
def test_names_and_types_are_checked(values, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig.from_dict(values)


@pytest.mark.parametrize(
    "content", [b"steps = ", b"data = 'x'\ndata = 'y'", b"\xff\xfe", b"[model"]
)
def test_a_file_that_is_not_toml(tmp_path, content):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.toml is not a TOML file"):
        TrainConfig.read(path)


def test_a_file_with_a_wrong_name_is_named(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("step = 3\n")
    with pytest.raises(ConfigError, match=r"run\.toml: no setting is called 'step'; did you mean"):
        TrainConfig.read(path)


def test_the_model_is_preset_and_table():
    config = TrainConfig(data="x", preset="gpt-10k", seq_len=64, model={"n_layer": 3})
    model = config.model_config(500)
    assert (model.n_layer, model.n_embd, model.seq_len, model.vocab_size) == (3, 24, 64, 500)
    with pytest.raises(ModelConfigError, match="no preset is called 'gpt-2'; there are gpt-1k"):
        replace(config, preset="gpt-2").model_config(500)
    with pytest.raises(ModelConfigError, match="no field n_layers"):
        replace(config, model={"n_layers": 3}).model_config(500)


def test_one_budget_is_used():
    model = ModelConfig.preset("gpt-1k", vocab_size=300, seq_len=16)
    config = TrainConfig(data="x", batch_size=2, seq_len=16, grad_accum=3, steps=7)
    assert config.tokens_per_step == 96
    assert config.total_steps(model) == 7
    assert replace(config, tokens=960).total_steps(model) == 10
    assert replace(config, tokens=1).total_steps(model) == 1
    per_step = model.flops_per_token(16) * 96
    assert replace(config, flops=5.5 * per_step).total_steps(model) == 5


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_default_rate_falls_with_the_width(optimizer):
    def rate(width):
        return default_learning_rate(ModelConfig(n_embd=width, n_head=1), optimizer)

    assert rate(8) == rate(128) == PEAK_RATES[optimizer] > 0
    assert rate(256) == pytest.approx(rate(128) / 2)


def test_every_character_comes_back(tmp_path):
    text = "".join(map(chr, range(1, 256))) + "日本語"
    config = TrainConfig(data="a.txt", prompt=text)
    (tmp_path / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    assert TrainConfig.from_dict(TrainConfig.read(tmp_path / "config.toml")) == config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": "\udcff"}, "prompt is .* not UTF-8"),
        ({"batch_size": 10**20}, "batch_size is .* at most"),
        ({"final_rate": -3.0}, "final_rate is -3.0; it must be from 0 to 1"),
        ({"tokens": 100, "seconds": 5.0}, "tokens and seconds are 2 budgets"),
    ],
)
def test_more_senseless_settings(changes, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(data="a.txt", **changes)
