"""RWKV-7's presets, counts by hand, its start, and what its config may not be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from phi_model import PRESETS, RWKV7, ConfigError, ModelConfig
from phi_model.rwkv7.parameters import decays_weight, rwkv7_parameter_shapes
from phi_model.rwkv7_sizes import lora_rank

NAMES = ["rwkv7-100k", "rwkv7-1m", "rwkv7-4m", "rwkv7-9m"]


def test_every_preset_is_there() -> None:
    assert [name for name in PRESETS if name.startswith("rwkv7-")] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_presets_hold_what_their_names_say(name: str) -> None:
    config = ModelConfig.preset(name)
    assert config.kind == "rwkv7"
    assert config.head_size == 32
    assert config.tied_head
    size, unit = int(name[6:-1]), {"k": 1e3, "m": 1e6}[name[-1]]
    assert config.n_non_embedding / unit == pytest.approx(size, rel=0.06)
    shapes = rwkv7_parameter_shapes(config)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == config.n_parameters
    assert ModelConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("changes", [{"tied_head": False}, {"n_hidden": 19}, {"n_layer": 1}])
def test_the_counts_are_those_of_the_arrays(changes: dict[str, Any]) -> None:
    config = ModelConfig.preset("rwkv7-100k", vocab_size=321, **changes)
    parameters = RWKV7(config).parameters
    assert sum(value.size for value in parameters.values()) == config.n_parameters
    outside = [v.size for name, v in parameters.items() if name not in ("embedding", "head")]
    assert sum(outside) == config.n_non_embedding


def test_ranks_are_the_authors() -> None:
    assert [lora_rank(name, 128) for name in "wavg"] == [32, 32, 32, 64]
    assert [lora_rank(name, 768) for name in "wavg"] == [64, 64, 32, 128]
    assert [lora_rank(name, 2048) for name in "wavg"] == [128, 128, 64, 224]


def test_flops_per_token_is_a_count_by_hand_and_knows_no_length() -> None:
    config = ModelConfig(kind="rwkv7", vocab_size=50, n_embd=12, n_layer=3, n_head=2, n_hidden=31)
    multiply_adds = 0
    for layer in range(3):
        multiply_adds += 4 * 12 * 12  # receptance, key, value, output
        multiply_adds += (4 if layer else 3) * 2 * 12 * 32  # LoRAs, no v in the first layer
        multiply_adds += 2 * (4 * 6 * 6)  # two heads: S q, (S q) b^T, v k^T, S r
        multiply_adds += 2 * 12 * 31  # the channel mix
    multiply_adds += 50 * 12  # the head
    assert config.flops_per_token(10) == 6 * multiply_adds
    assert config.flops_per_token(10) == config.flops_per_token(1000)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("length", [16, 37])
def test_memory_is_what_the_tables_hold(training: bool, length: int) -> None:
    config = ModelConfig.preset("rwkv7-100k")
    model = RWKV7(config)
    ids = np.zeros((3, length), int)
    use = config.memory(3, length, training=training)
    if training:
        model.loss_and_grad(ids, ids)
    else:
        model.loss(ids, ids)
    (arena,) = model._workspaces.values()
    assert use.activations == arena.nbytes - arena.state.nbytes
    assert use.parameters == model.parameters.flat.nbytes
    assert config.memory(4, 64, workers=2).gradients == 2 * use.parameters
    with pytest.raises(ConfigError, match="batch_size is 0"):
        config.memory(0, 16)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"n_head": 3}, "n_embd 8 cannot be split into 3 heads"),
        ({"qk_norm": True}, "qk_norm is True, but an rwkv7 has no attention"),
        ({"n_head": 4, "n_kv_head": 2}, "n_kv_head is 2, but"),
        ({"rope_base": 5.0}, "rope_base is 5.0, but"),
        ({"rope_scaling": 2.0}, "rope_scaling is 2.0, but"),
        ({"residual_init": "scaled"}, "residual_init is 'scaled', but"),
    ],
)
def test_what_only_attention_has_is_refused(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        ModelConfig(**({"kind": "rwkv7", "n_embd": 8, "n_head": 2} | changes))


def test_an_odd_head_is_welcome() -> None:
    assert ModelConfig(kind="rwkv7", n_embd=9, n_head=3).head_size == 3


def test_it_starts_as_its_authors_say() -> None:
    """Single values, by hand, of 4 layers of 128 channels: channel 127 of layer 0, 0 of 3."""
    p = RWKV7(ModelConfig.preset("rwkv7-1m", tied_head=False, vocab_size=300)).parameters
    first, last = "layers.0.time_mix.", "layers.3.time_mix."
    assert p[f"{first}mix_w"][127] == pytest.approx(1 - (127 / 128) ** 0.9)
    assert p[f"{last}mix_r"][64] == pytest.approx(1 - 0.5 ** (0.2 / 4))
    assert p["layers.0.channel_mix.mix_k"][64] == pytest.approx(0.5)
    assert p[f"{first}w_bias"][127] == pytest.approx(0.5 + 2.5)  # zigzag is 1 at a head's end
    assert p[f"{last}w_bias"][0] == pytest.approx(-6 + 0.5 - 2.5)
    assert p[f"{first}a_bias"][0] == pytest.approx(-0.19 - 0.3 - 0.2)
    assert p["layers.1.time_mix.v_bias"][127] == pytest.approx(0.73 - 0.2)
    assert p[f"{first}k_k"][0] == pytest.approx(0.71 + 0.05)
    assert p[f"{first}k_a"][5] == pytest.approx(1.02)
    assert p[f"{first}r_k"][5] == pytest.approx(-0.04)
    assert p[f"{first}head_norm.gain"][0] == pytest.approx(0.25**0.7)
    for name in ("time_mix.output", "channel_mix.value", "time_mix.w_down"):
        assert not p[f"layers.2.{name}"].any()
    for name, gain in (("receptance", 1.0), ("value", 1.0), ("key", 0.1)):
        w = p[first + name].astype(np.float64)
        np.testing.assert_allclose(w @ w.T, gain**2 * np.eye(128), atol=1e-6)
    up = p[f"{first}g_up"].astype(np.float64)  # [128, 64]
    np.testing.assert_allclose(up.T @ up, 0.01 * np.eye(64), atol=1e-6)
    head = p["head"].astype(np.float64)
    np.testing.assert_allclose(head.T @ head, 0.25 * 300 / 128 * np.eye(128), atol=1e-5)
    assert 0.9e-4 < np.abs(p["embedding"]).max() <= 1e-4
    assert RWKV7(ModelConfig.preset("rwkv7-1m")).parameters["embedding"].std() > 0.04


def test_weight_decay_spares_loras_and_vectors() -> None:
    shapes = rwkv7_parameter_shapes(ModelConfig.preset("rwkv7-100k"))
    decayed = [name for name, shape in shapes.items() if decays_weight(name, len(shape))]
    assert {name.split(".")[-1] for name in decayed} == {
        "embedding",
        "receptance",
        "key",
        "value",
        "output",
    }
