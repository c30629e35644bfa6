"""Every page can be read and run, says what it costs, and its own trials do what they say."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phi_model.reference_choices import ReferenceChoices
from phi_train import ConfigError, TrainConfig
from phi_train.corpus import builtin_stories, open_corpus
from phi_train.experiment import Experiment, Journal, Outcome, Stopped, Trial, find_experiments
from phi_train.experiment.execute import load_function

EXPERIMENTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(EXPERIMENTS), str(EXPERIMENTS / "wall")]

from defects import DEFECTS  # noqa: E402 (found by the line above)
from measured_run import drops, levels, train  # noqa: E402
from plain_training import recipe_of  # noqa: E402
from write_rates import best_rates, with_rates  # noqa: E402

PAGES = {experiment.id: experiment for experiment in find_experiments(EXPERIMENTS)}
ROOT = EXPERIMENTS.parent


@pytest.mark.parametrize("page", PAGES.values(), ids=list(PAGES))
def test_a_page_is_one_of_a_notebook(page: Experiment) -> None:
    for text in (page.question, page.hypothesis, page.success):
        assert len(text) > 20
    assert "Compute:" in page.notes
    assert (EXPERIMENTS / f"{page.id}.toml").exists()
    assert page.question.endswith("?")


@pytest.mark.parametrize("page", PAGES.values(), ids=list(PAGES))
def test_every_arm_can_be_run(page: Experiment) -> None:
    if page.function:
        assert callable(load_function(page.folder, page.function))
    for arm in page.arms:
        if page.function and "preset" not in arm.config:
            continue
        recipe = recipe_of(arm.config, 0) if page.function else TrainConfig.from_dict(arm.config)
        shape = recipe.model_config(1024)
        assert set(arm.config.get("defects", [])) <= set(DEFECTS)
        assert shape.tied_head or "stale" not in arm.config.get("defects", [])
        ReferenceChoices(**arm.config.get("choices", {}))


def test_sizes_are_those_that_the_names_say() -> None:
    names = {"K": 1e3, "M": 1e6}
    for page in (p for name, p in PAGES.items() if name.startswith("scaling")):
        for arm in page.arms:
            name = arm.name.split(",")[0]
            size = TrainConfig.from_dict(arm.config).model_config(1024).n_non_embedding
            assert size == pytest.approx(float(name[:-1]) * names[name[-1]], rel=0.06), name


def test_gelu_and_relu_have_as_many_parameters_as_ours() -> None:
    from phi_model.reference_choices import parameter_shapes  # noqa: PLC0415

    def size(config: dict[str, Any]) -> int:
        choices = ReferenceChoices(**config.get("choices", {}))
        shapes = parameter_shapes(recipe_of(config, 0).model_config(1024), choices)
        return sum(int(np.prod(shape)) for shape in shapes.values())

    sizes = {arm.name: size(dict(arm.config)) for arm in PAGES["architecture"].arms}
    assert sizes["gelu"] == sizes["relu"] == sizes["ours"] == sizes["alibi"]
    assert abs(sizes["layernorm"] / sizes["ours"] - 1) < 0.002


def test_the_largest_drop_is_found_where_it_is() -> None:
    losses = list(np.linspace(6, 5, 1000))
    losses[600:] = [loss - 1.5 for loss in losses[600:]]
    found = drops(losses, unigram=5.5)
    assert found["largest_drop"] == pytest.approx(1.6 / 5.47, abs=0.02)
    assert found["drop_at"] in (650, 700)
    assert found["wall_left_at"] == 550
    assert "wall_left_at" not in drops([6.0] * 400, unigram=5.5)
    steep_at_first = [9.0] * 50 + [3.0] * 950
    assert drops(steep_at_first, unigram=5.5)["largest_drop"] == 0


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("text")
    for name, part in (("train", slice(100)), ("valid", slice(100, 130))):
        text = "<|endoftext|>".join(builtin_stories(130, validation=False)[0][part])
        (folder / f"{name}.txt").write_text(text)
    return {
        "data": str(folder / "train.txt"),
        "valid": str(folder / "valid.txt"),
        "preset": "gpt-1k",
        "vocab_size": 300,
        "seq_len": 16,
        "batch_size": 2,
        "workers": "1",
        "steps": 30,
        "eval_every": 10,
        "checkpoint_every": 10,
        "sample_every": 0,
        "baselines": False,
        "documents": 4,
    }


def test_a_run_on_some_documents_sees_no_others(tmp_path: Path, config: dict[str, Any]) -> None:
    figures = train(config, 0, tmp_path, lambda: False)
    assert (tmp_path / "train.txt").read_text().split("<|endoftext|>") == open_corpus(
        config["data"], config["valid"]
    ).train[:4]
    assert figures["steps"] == 30
    assert len(figures["curves"]["valid_loss"]) == 3
    assert figures["best_loss"] <= figures["loss"]
    (tmp_path / "all").mkdir()
    every = train(config | {"documents": 0}, 0, tmp_path / "all", lambda: False)
    assert every["distinct_tokens"] > 10 * figures["distinct_tokens"]


def test_a_stopped_run_goes_on_to_the_same_end(tmp_path: Path, config: dict[str, Any]) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = train(config, 1, tmp_path / "whole", lambda: False)
    asked = itertools.count()
    with pytest.raises(Stopped):
        train(config, 1, tmp_path / "parts", lambda: next(asked) == 17)
    resumed = train(config, 1, tmp_path / "parts", lambda: False)
    for figures in (whole, resumed):
        del figures["seconds"]
    assert resumed == whole


def test_without_held_out_text_a_trial_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="valid is missing"):
        train(config | {"valid": ""}, 0, tmp_path, lambda: False)


def test_levels_fall_with_the_order(tmp_path: Path, config: dict[str, Any]) -> None:
    found = levels(config, 0, tmp_path, lambda: False)
    assert found["uniform"] > found["unigram"] > found["bigram"] > found["trigram"]
    assert found["loss"] == found["trigram"]


def test_the_best_rates_are_written_where_they_belong(tmp_path: Path) -> None:
    for name in ("scaling-rates", "scaling-text"):
        (tmp_path / f"{name}.toml").write_text((EXPERIMENTS / f"{name}.toml").read_text())
    page = next(p for p in find_experiments(tmp_path) if p.id == "scaling-rates")
    journal = Journal(page.journal)
    tried: dict[str, list[float]] = {}
    for arm in page.arms:
        tried.setdefault(arm.name.split(",")[0], []).append(arm.config["learning_rate"])
    for arm in page.arms:
        size, rate = arm.name.split(",")[0], arm.config["learning_rate"]
        best = max(tried[size]) if size == "1K" else sorted(tried[size])[1]
        if arm.name == "8.4M, learning_rate=0.001":
            continue  # not measured
        trial = Trial(
            experiment=page.id,
            arm=arm.name,
            config=arm.config,
            seed=0,
            settings=page.settings(arm),
            key=arm.name,
        )
        metrics = {page.metric: abs(np.log(rate / best))}
        journal.add(trial, Outcome(state="finished", metrics=metrics))
    rates, at_the_end = best_rates(tmp_path / "scaling-rates.toml")
    assert rates["1K"] == max(tried["1K"])
    assert rates["103K"] == sorted(tried["103K"])[1]
    assert "8.4M" not in rates
    assert at_the_end == ["1K"]
    before = (tmp_path / "scaling-text.toml").read_text()
    after = with_rates(before, rates | {"103K": 5e-3})
    changed = [b for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b]
    assert "learning_rate = 0.005" in changed
    assert with_rates(after, {}) == after


def test_a_trial_of_the_architecture_measures_what_it_can(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    page = PAGES["architecture"]
    trial = load_function(page.folder, page.function)
    settings = config | {"optimizer": "adamw", "learning_rate": 2e-3, "lengths": [8, 16, 32]}
    for positions in ("learned", "alibi"):
        folder = tmp_path / positions
        folder.mkdir()
        choices = {"norm": "layernorm", "positions": positions}
        figures = trial(settings | {"choices": choices}, 0, folder, lambda: False)
        assert ("loss_at_32" in figures) == (positions == "alibi")  # no learned position there
        assert figures["loss_at_16"] == pytest.approx(figures["loss"], rel=1e-6)
        assert figures["norm_us"] > 0
        assert figures["curves"]["loss"][-1][1] < figures["curves"]["loss"][0][1]
