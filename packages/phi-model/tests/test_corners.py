"""Corners that were once wrong, each with the mistake it guards against."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from phi_model import (
    GPT,
    CheckpointError,
    ConfigError,
    ModelConfig,
    load_checkpoint,
    save_checkpoint,
)
from phi_model.reference import swiglu

CONFIG = ModelConfig(vocab_size=9, seq_len=8, n_embd=4, n_layer=2, n_head=1, n_hidden=3)


@pytest.fixture
def model():
    return GPT(CONFIG)


@pytest.mark.parametrize("metadata", [{1: "a"}, {"a": (1, 2)}, {"a": object()}, {"a": "\ud800"}])
def test_metadata_that_would_not_come_back_is_refused_at_once(model, metadata, tmp_path):
    with pytest.raises(TypeError, match="metadata"):
        save_checkpoint(tmp_path / "m.phi", model, metadata=metadata)
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_without_dimensions_keeps_its_shape(model, tmp_path):
    save_checkpoint(tmp_path / "m.phi", model, tensors={"s": np.array(3.0)}, step=np.int64(3))
    loaded = load_checkpoint(tmp_path / "m.phi")
    assert loaded.tensors["s"].shape == ()
    assert loaded.step == 3


def test_a_further_tensor_cannot_replace_a_parameter(model, tmp_path):
    with pytest.raises(ValueError, match="model/embedding"):
        save_checkpoint(tmp_path / "m.phi", model, tensors={"model/embedding": np.zeros((9, 4))})


def test_opening_unverified_reads_little(model, tmp_path):
    big = {"big": np.zeros(10_000_000, np.float32)}
    save_checkpoint(tmp_path / "m.phi", model, tensors=big)
    tracemalloc.start()
    load_checkpoint(tmp_path / "m.phi", verify=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_a_header_larger_than_the_first_read_is_read(model, tmp_path):
    tokenizer = bytes(range(256)) * 8192
    save_checkpoint(tmp_path / "m.phi", model, tokenizer=tokenizer)
    assert load_checkpoint(tmp_path / "m.phi").tokenizer == tokenizer


def test_a_folder_is_not_a_checkpoint(tmp_path):
    with pytest.raises((CheckpointError, IsADirectoryError)):
        load_checkpoint(tmp_path)


def test_an_impossible_width_is_explained_at_once():
    start = time.perf_counter()
    with pytest.raises(ConfigError, match="n_head may be"):
        ModelConfig(n_embd=10_000_000, n_head=3)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("values", [{"tied_head": "false"}, {"norm_eps": True}])
def test_a_setting_of_the_wrong_kind_is_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        ModelConfig(**values)


def test_ragged_rows_and_words_for_weights_are_refused(model):
    with pytest.raises(ConfigError, match="ids"):
        model.loss([[1, 2], [3]], [[1, 2], [3]])
    with pytest.raises(ConfigError, match="weights"):
        model.loss([[1, 2]], [[1, 2]], [["a", "b"]])
    with pytest.raises(ConfigError, match="scale them down"):
        model.loss_and_grad([[1, 2]], [[1, 2]], [[1e300, 1.0]])


def test_the_reference_takes_a_very_negative_gate():
    y, _ = swiglu(np.array([[-200.0, 1.0]], np.float32))
    assert y[0, 0] == 0


def test_a_vocabulary_of_one_is_refused():
    with pytest.raises(ConfigError, match="nothing to predict"):
        ModelConfig(vocab_size=1)
