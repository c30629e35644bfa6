"""Presets have the documented sizes, impossible shapes say what would do, counts are by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from phi_model import GPT, PRESETS, ConfigError, ModelConfig

# name -> (parameters outside the embedding, parameters in all), as the documentation prints them
DOCUMENTED = {
    "gpt-1k": ("1.0K", "9.2K"),
    "gpt-10k": ("9.3K", "34K"),
    "gpt-100k": ("103K", "144K"),
    "gpt-1m": ("1.05M", "1.18M"),
}


def rounded(count: int, like: str) -> str:
    """`count` with the unit and the decimals of `like`."""
    decimals = len(like[:-1].partition(".")[2])
    return f"{count / {'K': 1e3, 'M': 1e6}[like[-1]]:.{decimals}f}{like[-1]}"


@pytest.mark.parametrize("name", DOCUMENTED)
def test_presets_have_the_documented_counts(name: str) -> None:
    config = ModelConfig.preset(name)
    outside, in_all = DOCUMENTED[name]
    assert rounded(config.n_non_embedding, outside) == outside
    assert rounded(config.n_parameters, in_all) == in_all


@pytest.mark.parametrize(
    ("name", "n_embd", "n_layer", "n_head"),
    [
        ("gpt-1k", 8, 1, 1),
        ("gpt-10k", 24, 1, 1),
        ("gpt-100k", 40, 4, 2),
        ("gpt-1m", 128, 4, 4),
        ("gpt-4m", 192, 6, 6),
        ("gpt-9m", 256, 8, 8),
        ("gpt-30m", 384, 12, 12),
    ],
)
def test_presets_have_the_documented_shapes(
    name: str, n_embd: int, n_layer: int, n_head: int
) -> None:
    config = ModelConfig.preset(name)
    assert (config.n_embd, config.n_layer, config.n_head) == (n_embd, n_layer, n_head)
    assert config.n_hidden == 4 * n_embd
    assert config.vocab_size == 1024
    assert config.tied_head
    size, unit = int(name[4:-1]), {"k": 1e3, "m": 1e6}[name[-1]]
    assert config.n_non_embedding / unit == pytest.approx(size, rel=0.15)
    if n_embd >= 128:
        assert config.head_size == 32


def test_every_preset_is_tested_above() -> None:
    gpts = [name for name in PRESETS if not name.startswith("rwkv7-")]  # test_rwkv7_config.py
    assert gpts == [f"gpt-{n}" for n in ("1k", "10k", "100k", "1m", "4m", "9m", "30m")]


CHOICES = [
    {},
    {"tied_head": False},
    {"qk_norm": True},
    {"n_head": 4, "n_kv_head": 2},
    {"n_head": 4, "n_kv_head": 1, "qk_norm": True, "tied_head": False},
]


@pytest.mark.parametrize("choices", CHOICES, ids=str)
@pytest.mark.parametrize("name", ["gpt-1k", "gpt-10k", "gpt-100k"])
def test_the_counts_are_those_of_the_arrays(name: str, choices: dict[str, Any]) -> None:
    config = ModelConfig.preset(name, **choices, vocab_size=321, n_hidden=19)
    parameters = GPT(config).parameters
    assert sum(value.size for value in parameters.values()) == config.n_parameters
    outside = [
        value.size for name, value in parameters.items() if name not in ("embedding", "head")
    ]
    assert sum(outside) == config.n_non_embedding


def test_counts_with_shared_keys_and_qk_norm_by_hand() -> None:
    config = ModelConfig(
        vocab_size=50, n_embd=24, n_layer=3, n_head=6, n_kv_head=2, n_hidden=31, qk_norm=True
    )
    assert (config.head_size, config.n_kv_embd, config.n_group) == (4, 8, 3)
    matrices = (24 + 8 + 8) * 24 + 24 * 24 + 3 * 31 * 24
    gains = 24 + 24 + 4 + 4
    assert config.n_non_embedding == 3 * (matrices + gains) + 24
    assert config.n_parameters == 3 * (matrices + gains) + 24 + 50 * 24
    queries_and_keys = 6 * (10 + 1) * 4  # 6 heads, (T + 1) / 2 keys each, 4 channels, twice
    assert config.flops_per_token(10) == 6 * (3 * (matrices + queries_and_keys) + 50 * 24)


def test_no_number_of_key_heads_means_one_for_each_head_of_queries() -> None:
    assert ModelConfig(n_head=8).n_kv_head == 8
    assert ModelConfig(n_head=8, n_kv_head=0).n_kv_head == 8
    assert ModelConfig.preset("gpt-1m").n_group == 1


def test_preset_takes_changes() -> None:
    config = ModelConfig.preset("gpt-1m", vocab_size=4096, seq_len=64, n_head=2)
    assert (config.vocab_size, config.seq_len, config.n_head, config.n_embd) == (4096, 64, 2, 128)


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no preset is called 'gpt-2'; there are gpt-1k, .*30m"):
        ModelConfig.preset("gpt-2")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"n_embd": 12, "n_head": 5}, r"n_embd 12 .* 5 heads .*; n_head may be 1, 2, 3, 6$"),
        ({"n_embd": 12, "n_head": 4}, r"n_embd 12 .* 4 heads of even size .* 1, 2, 3, 6$"),
        ({"n_embd": 8, "n_head": 16}, r"n_head may be 1, 2, 4$"),
        ({"n_embd": 7, "n_head": 1}, r"n_head may be none: choose an even n_embd"),
        ({"n_layer": 0}, r"n_layer is 0; it must be a whole number, 1 or more"),
        ({"n_head": -1}, r"n_head is -1; it must be a whole number, 1 or more"),
        ({"n_embd": 0}, r"n_embd is 0;"),
        ({"n_hidden": -3}, r"n_hidden is -3;"),
        ({"vocab_size": 10.5}, r"vocab_size is 10\.5; it must be a whole number"),
        ({"vocab_size": "1024"}, r"vocab_size is '1024'; it must be a whole number"),
        ({"seq_len": True}, r"seq_len is True; it must be a whole number"),
        ({"seq_len": None}, r"seq_len is None; it must be a whole number"),
        ({"norm_eps": 0.0}, r"norm_eps is 0\.0; it must be a positive number"),
        ({"norm_eps": float("nan")}, r"norm_eps is nan; it must be a positive number"),
        ({"rope_base": -1}, r"rope_base is -1; it must be a positive number"),
        ({"rope_base": float("inf")}, r"rope_base is inf; it must be a positive number"),
        ({"rope_base": "10000"}, r"rope_base is '10000'; it must be a positive number"),
        ({"n_head": 4, "n_kv_head": 3}, r"n_kv_head 3 .* n_head 4 .*n_kv_head may be 1, 2, 4$"),
        ({"n_head": 4, "n_kv_head": 8}, r"n_kv_head 8 .*; n_kv_head may be 1, 2, 4$"),
        ({"n_kv_head": -1}, r"n_kv_head is -1; it must be a whole number, 1 or more"),
        ({"n_kv_head": 2.0}, r"n_kv_head is 2\.0; it must be a whole number"),
        ({"qk_norm": 1}, r"qk_norm is 1; it must be true or false"),
        ({"rope_scaling": 0}, r"rope_scaling is 0; it must be a positive number"),
        ({"rope_scaling": float("nan")}, r"rope_scaling is nan; it must be a positive number"),
        ({"residual_init": "zero"}, r"residual_init is 'zero'; it must be 'small' or 'scaled'"),
        ({"residual_init": 1}, r"residual_init is 1; it must be 'small' or 'scaled'"),
        ({"kind": "lstm"}, r"kind is 'lstm'; this version knows .*'gpt'"),
    ],
)
def test_an_impossible_shape_says_what_would_do(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line) as caught:
        ModelConfig(**changes)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError):
        ModelConfig.from_dict(changes)


def test_from_dict_refuses_unknown_names_and_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"no field d_model, n_layers; it has .*n_embd"):
        ModelConfig.from_dict({"n_layers": 2, "d_model": 64, "n_head": 2})
    with pytest.raises(ConfigError, match="no field dropout"):
        ModelConfig.preset("gpt-1k", dropout=0.1)


def test_to_dict_and_from_dict_are_inverse() -> None:
    config = ModelConfig.preset("gpt-100k", n_hidden=33, tied_head=False, rope_base=500.0)
    assert ModelConfig.from_dict(config.to_dict()) == config
    config = ModelConfig(n_kv_head=2, qk_norm=True, rope_scaling=4.0, residual_init="scaled")
    assert ModelConfig.from_dict(config.to_dict()) == config
    assert ModelConfig.from_dict({}) == ModelConfig()
    names = [field.name for field in dataclasses.fields(ModelConfig)]
    assert list(config.to_dict()) == names


def test_a_config_is_a_value() -> None:
    config = ModelConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.n_layer = 5  # type: ignore[misc]
    assert hash(config) == hash(ModelConfig())
    with pytest.raises(TypeError):
        ModelConfig("gpt", 1024)  # type: ignore[misc]


@pytest.mark.parametrize("tied_head", [True, False])
@pytest.mark.parametrize("length", [1, 2, 17, 256])
def test_flops_per_token_is_a_count_by_hand(length: int, tied_head: bool) -> None:
    """Multiply-adds of every matrix product of a window, one product after the other."""
    config = ModelConfig(
        vocab_size=50, n_embd=12, n_layer=3, n_head=2, n_hidden=31, tied_head=tied_head
    )
    multiply_adds = 0
    for position in range(length):
        for _layer in range(3):
            multiply_adds += (12 * 3) * 12  # qkv
            for _head in range(2):
                visible_keys = position + 1
                multiply_adds += visible_keys * 6  # q . k
                multiply_adds += visible_keys * 6  # weights v
            multiply_adds += 12 * 12  # out
            multiply_adds += 2 * 31 * 12  # gate and up
            multiply_adds += 12 * 31  # down
        multiply_adds += 50 * 12  # the head
    forward = 2 * multiply_adds
    backward = 2 * forward
    assert config.flops_per_token(length) * length == forward + backward


def test_flops_default_to_the_trained_length() -> None:
    config = ModelConfig.preset("gpt-1m", seq_len=128)
    assert config.flops_per_token() == config.flops_per_token(128)
    assert config.flops_per_token() < config.flops_per_token(129)
    in_all = 6 * config.n_parameters
    assert config.flops_per_token() == pytest.approx(in_all, rel=0.1)  # the usual rule of thumb
