"""The research log says what the journals say, and nothing where they are silent."""

from __future__ import annotations

import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from phi_train.experiment import Experiment, Journal, Outcome, Trial, find_experiments

EXPERIMENTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(EXPERIMENTS), str(EXPERIMENTS / "research_log")]

from book import Book  # noqa: E402 (found by the line above)
from fits import fit_joint, fit_scaling, interval  # noqa: E402
from scaling import Point, crossing  # noqa: E402
from write_log import research_log  # noqa: E402

LEVELS = {"uniform": 6.93, "unigram": 5.77, "bigram": 3.39, "trigram": 2.62, "4-gram": 2.46}
SIZES = {"1K": 1e3, "9K": 9e3, "28K": 2.8e4, "103K": 1.03e5, "308K": 3.08e5, "1M": 1.05e6}
SIZES |= {"3.5M": 3.5e6, "8.4M": 8.4e6}
LossOf = Callable[[Experiment, str, int], float]


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """The real pages, without any journal."""
    for page in EXPERIMENTS.glob("*.toml"):
        shutil.copy(page, tmp_path)
    return tmp_path


def fill(pages: Path, loss_of: LossOf, *, only: str = "", most: int = 10**6) -> None:
    """Journals with an outcome for each trial, at most so many of each experiment."""
    for experiment in find_experiments(pages):
        if only and experiment.id != only:
            continue
        journal = Journal(experiment.journal)
        for arm in experiment.arms:
            for seed in experiment.seeds:
                if len(journal) < most:
                    outcome = outcome_of(experiment, arm.name, seed, loss_of)
                    trial = Trial(
                        experiment=experiment.id,
                        arm=arm.name,
                        config=arm.config,
                        seed=seed,
                        settings=experiment.settings(arm),
                        key=f"{arm.name} {seed}",
                    )
                    journal.add(trial, outcome)


def outcome_steps(experiment: Experiment, arm: str) -> int:
    config = next(a.config for a in experiment.arms if a.name == arm)
    return int(config.get("steps", 1))


def outcome_of(experiment: Experiment, arm: str, seed: int, loss_of: LossOf) -> Outcome:
    size = SIZES.get(arm.split(",", maxsplit=1)[0], 1e6)
    steps = outcome_steps(experiment, arm)
    loss = loss_of(experiment, arm, seed)
    if not np.isfinite(loss):
        return Outcome(state="diverged", error="loss nan at step 7")
    metrics = {"loss": loss, "gap": loss, "bits_per_byte": loss, "train_loss": loss / 2}
    metrics |= {"best_loss": loss, "largest_drop": 0.02, "drop_at": 900.0, "step_ms": 100.0}
    metrics |= {"distinct_tokens": 1000.0 + len(arm), "wall_left_at": 150.0}
    metrics |= {f"loss_at_{n}": loss for n in (64, 128, 256, 512)}
    if experiment.id == "levels":
        metrics |= LEVELS
    if experiment.id == "star":
        metrics |= {f"{name}/accuracy": 0.5 + 0.001 * seed for name in ("base", "star-1", "chosen")}
        metrics |= {"chosen": 1.0, "chosen/gain": 0.001 * seed, "chosen/gain low": -0.03}
    if experiment.id == "spin":
        metrics |= {f"{name}/bits_per_byte": loss for name in ("base", "spin-1")}
    return Outcome(
        state="finished",
        metrics=metrics,
        curves={"loss": [[100, 6.0], [2000, loss]], "valid_loss": [[100, 6.0], [2000, loss]]},
        steps=steps,
        tokens=steps * 512,
        parameters=int(size) + 131_072,
        non_embedding=int(size),
    )


def usual(experiment: Experiment, arm: str, seed: int) -> float:
    """A made-up world: the law is known, three defects together make a wall, ours are best."""
    if experiment.id.startswith("scaling"):
        steps = outcome_steps(experiment, arm)
        floor = 0.0 if experiment.id == "scaling-grammar" else 1.5
        size = SIZES[arm.split(",", maxsplit=1)[0]]
        return float(floor + 12 * size**-0.3 + 400 * (steps * 512) ** -0.4)
    if "order+rrms" in arm:
        return 6.4
    others = ("layernorm", "gelu", "relu", "alibi", "learned positions")
    return 3.4 + 0.001 * seed + 0.2 * (arm in others)


def test_nothing_run_is_nothing_said(pages: Path) -> None:
    text, figures = research_log(Book(pages), "")
    assert not figures
    for experiment in find_experiments(pages):
        if experiment.id != "levels":
            assert f"`phi-train experiment run {experiment.id} --workers 2` runs it" in text
    assert "Not answered yet" in "\n".join(text.splitlines()[:10])
    assert "optimisation_log.py --write` runs it" in text
    for invented in ("holds |", "is better", "a wall is made by", "± "):
        assert invented not in text


def test_the_first_ten_lines_answer_with_a_figure(pages: Path) -> None:
    fill(pages, usual)
    text, figures = research_log(Book(pages), "")
    first = "\n".join(text.splitlines()[:10])
    assert "unigram (5.77) from 1K parameters" in first
    assert "figures/scaling-text.svg" in first
    assert "What would change it" in first
    assert (
        "head tied and AdamW 3e-4 a wall is made by order+rrms (6.400), order+rrms+stale (" in first
    )
    assert "not run yet" not in text.lower().replace("**not run yet**; `python", "")
    assert set(figures) == {"scaling-text.svg", "wall.svg", "stories.svg", "self-improvement.svg"}
    for content in figures.values():
        assert ET.fromstring(content).tag.endswith("svg")
    assert "ours is better" in text
    assert "Chinchilla" in text


def test_figures_of_the_log_are_those_of_the_journal(pages: Path) -> None:
    fill(pages, lambda e, a, s: {"M1": 4.0 + 0.5 * s}.get(a, usual(e, a, s)))
    text, _ = research_log(Book(pages), "")
    assert "| M1 | 1.3M, AdamW 3e-4, 300 steps | 6.37 | AdamW converges 3 times faster | " in text
    assert "4.500 ± 0.500 (3 seeds)" in text


def test_verdicts_follow_the_figures(pages: Path) -> None:
    def bad(experiment: Experiment, arm: str, seed: int) -> float:
        if arm in ("B1", "H1, 1.3M", "H4, 8M"):
            return 6.2
        if arm == "layernorm":
            return 3.1 + 0.001 * seed
        return float("nan") if arm == "E2" else usual(experiment, arm, seed)

    fill(pages, bad)
    text, _ = research_log(Book(pages), "")
    assert "at its rate the plateau stays" in text
    assert "| H1 | 1.3M is undertrained: 16K steps < 6.0 | 6.200 (1 seed) | does not hold |" in text
    assert "- H4 (8M reaches the bigram level: 8K steps < 3.5): 6.200." in text
    assert "**ours is worse**" in text
    assert "-, 3 diverged" in text
    assert "- inherited, E2: diverged, loss nan at step 7" in text


def test_half_a_journal_is_no_error(pages: Path) -> None:
    for most in (1, 5, 13):
        fill(pages, usual, most=most)
        text, _ = research_log(Book(pages), "")
        assert "goes on" in text


def test_the_benchmark_is_taken_over(pages: Path) -> None:
    results = "x\n<!-- optimisation-log:begin -->\n## Title\n\n| OPT-001 | 2 |\n"
    text, _ = research_log(Book(pages), results + "<!-- optimisation-log:end -->\ny")
    assert "| OPT-001 | 2 |" in text
    assert "optimisation_log.py --write` runs it" not in text


@pytest.mark.parametrize("floor", [True, False])
def test_a_fit_finds_the_law_that_made_the_points(floor: bool) -> None:
    sizes, tokens = np.repeat(list(SIZES.values()), 4), np.tile([5e5, 1.6e6, 3e6, 1.2e7], 8)
    noise = 1 + 0.002 * np.random.default_rng(0).standard_normal(sizes.size)
    law = 1.5 * floor + 12 * sizes**-0.3 + 400 * tokens**-0.4
    fit = fit_scaling(sizes, tokens, law * noise, floor=floor)
    assert interval(fit.size_power)[0] == pytest.approx(0.3, abs=0.03)
    assert interval(fit.token_power)[0] == pytest.approx(0.4, abs=0.04)
    level = 1.5 * floor + 12 * 1e5**-0.3 + 400 * 2e6**-0.4
    best, low, high = interval(fit.tokens_for(level, 1e5))
    assert low <= best <= high
    assert best == pytest.approx(2e6, rel=0.1)
    # the best ratio against a search for the least loss at 6 N D = 1e13
    n = np.geomspace(1e3, 1e9, 200_001)
    least = n[np.argmin(12 * n**-0.3 + 400 * (1e13 / 6 / n) ** -0.4)]
    assert interval(fit.best_ratio(1e13))[0] == pytest.approx(1e13 / 6 / least**2, rel=0.3)


def test_a_joint_fit_finds_the_law_that_made_the_points() -> None:
    sizes, tokens = (
        x.ravel() for x in np.meshgrid(np.geomspace(1e3, 1e7, 7), np.geomspace(5e4, 1e7, 6))
    )
    law = ((1e9 / sizes) ** (0.1 / 0.25) + 1e8 / tokens) ** 0.25
    noise = 1 + 0.002 * np.random.default_rng(1).standard_normal(law.size)
    fit = fit_joint(sizes, tokens, law * noise)
    assert interval(fit.size_power)[0] == pytest.approx(0.1, rel=0.05)
    assert interval(fit.token_power)[0] == pytest.approx(0.25, rel=0.05)
    assert fit.residual < 0.004 * law.mean()
    assert fit.loss(1e6, 1e6)[0] == pytest.approx((1e3**0.4 + 1e2) ** 0.25, rel=0.01)
    level = float(fit.loss(1e5, 3e6)[0])
    best, low, high = interval(fit.tokens_for(level, 1e5))
    assert low <= best <= high
    assert best == pytest.approx(3e6)
    assert fit.tokens_for(0.5 * level, 1e3)[0] == np.inf
    tried = np.geomspace(1e3, 1e7, 4001)  # parameters, at 6 N D = 1e13
    least = tried[np.argmin([fit.loss(n, 1e13 / 6 / n)[0] for n in tried])]
    assert fit.best_ratio(1e13)[0] == pytest.approx(1e13 / 6 / least**2, rel=0.02)


def test_too_few_points_are_no_fit() -> None:
    with pytest.raises(ValueError, match="too few"):
        fit_joint(np.ones(4), np.ones(4), np.ones(4))
    with pytest.raises(ValueError, match="too few"):
        fit_scaling(np.ones(4), np.ones(4), np.ones(4))


def test_a_crossing_lies_between_its_volumes() -> None:
    points = [
        Point("x", 1, 1, tokens, loss)
        for tokens, loss in ((1_000_000, 4.0), (4_000_000, 3.0), (16_000_000, 2.5))
    ]
    assert crossing(points, 3.5) == "2M"  # half way on a logarithmic scale
    assert crossing(points, 4.5) == "< 1M"
    assert crossing(points, 2.0) == "> 16M"
