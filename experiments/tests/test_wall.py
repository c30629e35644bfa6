"""The defects are defects, the clean subclass is the reference, and both train as the fast path."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from phi_model import GPT, ModelConfig
from phi_model.reference import ReferenceGPT
from phi_train import ConfigError
from phi_train.corpus import builtin_stories

EXPERIMENTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(EXPERIMENTS), str(EXPERIMENTS / "wall")]

from defects import DEFECTS, DefectiveGPT  # noqa: E402 (found by the line above)
from wall import train  # noqa: E402

Array = NDArray[Any]
TIED = ModelConfig(vocab_size=7, n_embd=6, n_layer=2, n_head=1, n_hidden=5)
UNTIED = ModelConfig(vocab_size=7, n_embd=6, n_layer=2, n_head=1, n_hidden=5, tied_head=False)
CONFIG = {
    "preset": "gpt-10k",
    "vocab_size": 300,
    "seq_len": 32,
    "batch_size": 2,
    "steps": 12,
    "warmup_steps": 4,
    "optimizer": "adamw",
    "learning_rate": 3e-3,
    "eval_every": 6,
    "start": "ours",
    "model_kind": "reference",
    "defects": [],
}


def lively(config: ModelConfig) -> dict[str, Array]:
    """Parameters of full size, so that every gradient matters."""
    rng = np.random.default_rng(0)
    return {
        name: (1 + rng.standard_normal(v.shape) / 4)
        if v.ndim == 1
        else rng.standard_normal(v.shape) * (1 if name == "embedding" else v.shape[1] ** -0.5)
        for name, v in GPT(config).parameters.items()
    }


def slopes(model: ReferenceGPT, steps: int = 2) -> list[tuple[float, float]]:
    """(claimed, by central differences) along one direction through all parameters, each step."""
    rng = np.random.default_rng(1)
    plain = ReferenceGPT(model.config, model.parameters)
    found = []
    for _ in range(steps):
        ids, targets = rng.integers(0, 7, (2, 2, 5))
        _, gradients = model.loss_and_grad(ids, targets)
        start = {name: value.copy() for name, value in model.parameters.items()}
        direction = {name: rng.standard_normal(value.shape) for name, value in start.items()}
        losses = []
        for distance in (-2e-4, -1e-4, 1e-4, 2e-4):
            for name, value in model.parameters.items():
                value[...] = start[name] + distance * direction[name]
            losses.append(plain.loss_and_grad(ids, targets)[0])
        for name, value in model.parameters.items():
            value[...] = start[name]
        claimed = sum(float((g * direction[name]).sum()) for name, g in gradients.items())
        found.append((claimed, (losses[0] - 8 * losses[1] + 8 * losses[2] - losses[3]) / 12e-4))
    return found


@pytest.mark.parametrize("config", [TIED, UNTIED], ids=["tied", "untied"])
def test_without_defects_it_is_the_reference_to_the_last_bit(config: ModelConfig) -> None:
    parameters = lively(config)
    ids, targets = np.random.default_rng(2).integers(0, 7, (2, 2, 5))
    loss, gradients = ReferenceGPT(config, parameters).loss_and_grad(ids, targets)
    clean = DefectiveGPT(config, parameters)
    for _ in range(2):  # nothing is carried from step to step
        assert clean.loss_and_grad(ids, targets)[0] == loss
        for name, gradient in clean.loss_and_grad(ids, targets)[1].items():
            np.testing.assert_array_equal(gradient, gradients[name], err_msg=name)
    for claimed, true in slopes(clean):
        assert claimed == pytest.approx(true, rel=1e-7, abs=1e-9)


SETS = [
    (config, chosen)
    for config in (TIED, UNTIED)
    for n in (1, 2, 3)
    for chosen in itertools.combinations(DEFECTS, n)
    if config.tied_head or "stale" not in chosen
]


@pytest.mark.parametrize(
    ("config", "chosen"),
    SETS,
    ids=[f"{'tied' if c.tied_head else 'untied'}-{'+'.join(d)}" for c, d in SETS],
)
def test_each_set_of_defects_claims_a_wrong_slope(
    config: ModelConfig, chosen: tuple[str, ...]
) -> None:
    found = slopes(DefectiveGPT(config, lively(config), defects=chosen))
    off = [abs(claimed - true) / abs(true) for claimed, true in found]
    assert off[1] > 0.05, off
    if chosen == ("stale",):
        assert off[0] < 1e-7, "the first step cannot show it"
    else:
        assert off[0] > 0.05, off


def test_losses_are_right_whatever_the_defects() -> None:
    parameters = lively(TIED)
    ids, targets = np.random.default_rng(2).integers(0, 7, (2, 2, 5))
    right = ReferenceGPT(TIED, parameters).loss_and_grad(ids, targets)[0]
    assert DefectiveGPT(TIED, parameters, defects=DEFECTS).loss_and_grad(ids, targets)[0] == right


def test_stale_is_the_sum_of_all_steps() -> None:
    parameters = lively(TIED)
    batches = np.random.default_rng(2).integers(0, 7, (3, 2, 2, 5))
    stale = DefectiveGPT(TIED, parameters, defects=["stale"])
    last = [stale.loss_and_grad(*batch)[1]["embedding"] for batch in batches][-1]
    clean = ReferenceGPT(TIED, parameters)
    each = [clean.loss_and_grad(*batch)[1]["embedding"] for batch in batches]
    np.testing.assert_allclose(last, sum(each), rtol=1e-12)


def test_a_defect_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no defect is called 'typo'"):
        DefectiveGPT(TIED, lively(TIED), defects=["typo"])
    with pytest.raises(ConfigError, match="tied head's"):
        DefectiveGPT(UNTIED, lively(UNTIED), defects=["stale"])


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """CONFIG on a text small enough to be measured in a moment."""
    path = tmp_path_factory.mktemp("text") / "stories.txt"
    path.write_text("<|endoftext|>".join(builtin_stories(120, validation=False)[0]))
    return CONFIG | {"data": str(path)}


def curve(config: dict[str, Any], path: Path) -> tuple[list[float], dict[str, Any]]:
    figures = train(config, 0, path, never)
    return [value for _, value in figures["curves"]["loss"]], figures


@pytest.mark.parametrize("tied", [True, False])
def test_the_clean_reference_and_the_fast_path_have_one_loss_curve(
    tmp_path: Path, tied: bool, config: dict[str, Any]
) -> None:
    config = config | {"model": {"tied_head": tied}}
    plain, figures = curve(config, tmp_path)
    fast, fast_figures = curve(config | {"model_kind": "fast"}, tmp_path)
    np.testing.assert_allclose(plain, fast, rtol=2e-5)
    assert figures["loss"] == pytest.approx(fast_figures["loss"], rel=2e-5)
    assert plain[-1] < plain[0] - 0.1, "nothing was learnt: the comparison would say little"


def test_a_defect_changes_the_curve(tmp_path: Path, config: dict[str, Any]) -> None:
    plain, _ = curve(config, tmp_path)
    for defect in DEFECTS:
        spoilt, _ = curve(config | {"defects": [defect]}, tmp_path)
        assert spoilt[0] == plain[0]
        assert max(abs(a - b) for a, b in zip(plain, spoilt, strict=True)) > 1e-3, defect


def test_a_stopped_trial_goes_on_to_the_same_end(tmp_path: Path, config: dict[str, Any]) -> None:
    experiment = pytest.importorskip("phi_train.experiment", exc_type=ImportError)
    config = config | {"defects": list(DEFECTS)}
    (tmp_path / "whole").mkdir()
    whole = train(config, 3, tmp_path / "whole", never)
    asked = itertools.count()
    with pytest.raises(experiment.Stopped):
        train(config, 3, tmp_path, lambda: next(asked) == 7)
    resumed = train(config, 3, tmp_path, never)
    for figures in (whole, resumed):
        del figures["seconds"], figures["step_ms"]
    assert resumed == whole


def test_a_killed_trial_goes_on_from_what_it_saved(tmp_path: Path, config: dict[str, Any]) -> None:
    config = config | {"defects": list(DEFECTS), "checkpoint_every": 5}
    whole = train(config, 3, tmp_path, never)
    saved = tmp_path / "stopped.npz"
    with np.load(saved) as file:
        assert file["losses"].size == 10  # of 12 steps: the last two are made again
    resumed = train(config, 3, tmp_path, never)
    for figures in (whole, resumed):
        del figures["seconds"], figures["step_ms"]
    assert resumed == whole
