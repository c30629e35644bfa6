"""What is measured of each layer's movement, by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from phi_model import load_checkpoint
from phi_train import train
from phi_train.groups import GroupWatch, group_of


def _lines(result):
    return [json.loads(line) for line in result.folder.metrics.read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("layers.0.attention.qkv", "layers.0"),
        ("layers.11.mlp_norm.gain", "layers.11"),
        ("embedding", "embedding"),
        ("final_norm.gain", "final_norm"),
        ("head", "head"),
    ],
)
def test_groups(name, group):
    assert group_of(name) == group


def test_by_hand():
    weights = {"layers.0.a": np.array([3.0, 0.0]), "layers.0.b": np.array([[4.0]])}
    weights["head"] = np.zeros(2)
    gradients = {"layers.0.a": np.array([6.0, 0.0]), "layers.0.b": np.array([[8.0]])}
    gradients["head"] = np.ones(2)
    watch = GroupWatch(weights, gradients)
    weights["layers.0.a"] += [0.3, 0.4]
    weights["head"] += 1
    assert watch.measured() == {
        "layers.0": {"grad_norm": 10.0, "update_ratio": pytest.approx(0.1)},
        "head": {"grad_norm": pytest.approx(2**0.5), "update_ratio": 0.0},
    }


def test_in_a_run_every_so_many_steps(settings):
    """The groups' norms make up the whole one; the ratios are those of saved weights."""
    result = train(settings(groups_every=4, checkpoint_every=1, keep=24, optimizer="adamw"))
    lines = _lines(result)
    groups = {line["step"]: line["groups"] for line in lines if "groups" in line}
    assert list(groups) == [4, 8, 12, 16, 20, 24]
    assert list(groups[8]) == ["embedding", "layers.0", "final_norm"]
    norms = {line["step"]: line["grad_norm"] for line in lines if "loss" in line}
    for step, measured in groups.items():
        total = sum(one["grad_norm"] ** 2 for one in measured.values()) ** 0.5
        assert total == pytest.approx(norms[step], rel=1e-5)
    before, after = (
        load_checkpoint(result.folder.checkpoint(n)).parameters["embedding"] for n in (7, 8)
    )
    ratio = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert groups[8]["embedding"]["update_ratio"] == pytest.approx(float(ratio), rel=1e-5)


def test_looking_changes_nothing(settings):
    one, two = (train(settings(str(n), groups_every=n, sample_every=n)) for n in (0, 3))
    assert one.folder.last.read_bytes() == two.folder.last.read_bytes()
