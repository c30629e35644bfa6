"""SPIN's gradient against finite differences of its true loss, its measures, and kill -9."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from phi_model import ModelConfig, build_model, load_checkpoint, save_checkpoint
from phi_tokenizer import Tokenizer
from phi_train import ConfigError, DataError, RunError
from phi_train.errors import Stopped
from phi_train.improve.pause import Pause
from phi_train.improve.rows import END_OF_TEXT, Row
from phi_train.improve.spin import SpinConfig, run_spin
from phi_train.improve.spin_loss import pair_weights, spin_loss, spin_loss_and_grad
from phi_train.improve.text_measures import classifier_accuracy, distinct, divergence, repetition
from phi_train.stories import stories

SCALE = 0.3
SMALL = {
    "iterations": 2,
    "pairs": 6,
    "prompt_words": 4,
    "max_tokens": 10,
    "steps": 6,
    "batch_size": 3,
    "held_out": 4,
    "valid_documents": 3,
}


def pairs_of(n: int, vocab_size: int) -> tuple[list[Row], list[Row]]:
    """Rows of different lengths, those of a pair with one prompt."""
    rng = np.random.default_rng(4)
    real, own = [], []
    for _ in range(n):
        prompt = rng.integers(0, vocab_size, rng.integers(1, 5)).tolist()
        for side in (real, own):
            rest = rng.integers(0, vocab_size, rng.integers(1, 9)).tolist()
            side.append(Row((*prompt, *rest), len(prompt)))
    return real, own


def slow_log_prob(model, row: Row) -> float:
    """Token by token, from the logits of the row alone."""
    logits = model.logits([list(row.ids)])[0].astype(np.float64)
    total = 0.0
    for position in range(row.n_given, len(row.ids)):
        before = logits[position - 1]
        total += before[row.ids[position]] - before.max()
        total -= math.log(np.exp(before - before.max()).sum())
    return total


def slow_loss(model, real, own, reference) -> float:
    """The formula as it is printed."""
    n = len(real)
    losses = []
    for i in range(n):
        y = slow_log_prob(model, real[i]) - reference[i]
        y_own = slow_log_prob(model, own[i]) - reference[n + i]
        losses.append(-math.log(1 / (1 + math.exp(-SCALE * (y - y_own)))))
    return sum(losses) / n


@pytest.mark.parametrize("preset", ["gpt-1k", "rwkv7-100k"])
def test_the_gradient_is_that_of_the_true_loss(preset):
    small = {} if preset == "gpt-1k" else {"n_layer": 1}
    config = ModelConfig.preset(preset, vocab_size=20, seq_len=16, **small)
    model = build_model(config, seed=3, dtype=np.float64)
    rng = np.random.default_rng(0)
    flat = model.parameters.flat
    flat += 0.1 * rng.standard_normal(flat.size)
    real, own = pairs_of(4, 20)
    # a reference that is another model: margins of all sizes
    reference = np.array([slow_log_prob(model, row) for row in [*real, *own]])
    reference += 5 * rng.standard_normal(reference.size)

    loss, margins = spin_loss_and_grad(model, real, own, reference, scale=SCALE)
    gradient = model.gradients.flat.astype(np.float64).copy()
    assert loss == pytest.approx(slow_loss(model, real, own, reference), rel=1e-10)
    assert margins.min() < -0.3
    assert margins.max() > 0.5

    start, step = flat.copy(), 1e-5
    for _ in range(4):
        direction = rng.standard_normal(flat.size)
        direction /= np.linalg.norm(direction)
        flat[...] = start + step * direction
        above = slow_loss(model, real, own, reference)
        flat[...] = start - step * direction
        below = slow_loss(model, real, own, reference)
        flat[...] = start
        assert gradient @ direction == pytest.approx((above - below) / (2 * step), rel=1e-5)


def test_a_model_against_itself_has_a_loss_of_ln_2():
    loss, margins = spin_loss(np.array([-3.0, -7.0]), np.array([-3.0, -7.0]), 0.1)
    assert loss == pytest.approx(math.log(2))
    assert margins.tolist() == [0.0]


def test_weights_of_any_margin_are_finite_and_cancel():
    weights = pair_weights(np.array([-1e5, 0.0, 1e5]), 2.0)
    np.testing.assert_allclose(weights, np.array([2, 1, 0, -2, -1, 0]) / 3, atol=1e-12)


# measures


def test_divergence_is_that_of_a_plain_twin():
    rng = np.random.default_rng(1)
    real, own = (rng.integers(0, 5, (6, 20)).tolist() for _ in range(2))

    def shares(texts):
        grams = [(ids[i], ids[i + 1]) for ids in texts for i in range(len(ids) - 1)]
        return {g: grams.count(g) / len(grams) for g in grams}

    p, q = shares(real), shares(own)
    total = 0.0
    for gram in {*p, *q}:
        a, b = p.get(gram, 0), q.get(gram, 0)
        for one in (a, b):
            if one:
                total += 0.5 * one * math.log2(one / ((a + b) / 2))
    assert divergence(real, own, 2) == pytest.approx(total)
    assert divergence(real, own, 2) == pytest.approx(divergence(own, real, 2))
    with pytest.raises(ConfigError, match="too short"):
        divergence([[1]], [[2]], 2)


def test_diversity_and_repetition_by_hand():
    assert distinct([[1, 2, 1, 2], [1, 2]], 2) == 2 / 4
    assert repetition([[1, 2, 1, 2], [1, 2]], 2) == 1 / 4
    assert distinct([[1]], 2) == repetition([[1]], 2) == 0


def test_the_classifier_tells_apart_what_differs_and_only_that():
    rng = np.random.default_rng(2)
    low = rng.integers(0, 30, (60, 12)).tolist()
    same = rng.integers(0, 30, (60, 12)).tolist()
    high = rng.integers(15, 45, (60, 12)).tolist()
    assert classifier_accuracy(low, high) > 0.95
    assert 0.35 < classifier_accuracy(low, same) < 0.65
    assert classifier_accuracy(low, low) == pytest.approx(0.5, abs=0.01)


# the loop


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A checkpoint with a tokenizer, and a few texts."""
    folder = tmp_path_factory.mktemp("start")
    texts = [story.text for story, _ in zip(stories(3), range(60), strict=False)]
    (folder / "texts.txt").write_text(END_OF_TEXT.join(texts), encoding="utf-8")
    tokenizer = Tokenizer.train(texts, vocab_size=300, special_tokens=[END_OF_TEXT])
    model = build_model(ModelConfig.preset("gpt-1k", vocab_size=300, seq_len=64), seed=1)
    save_checkpoint(folder / "start.phi", model, tokenizer=tokenizer.to_bytes())
    return {
        "checkpoint": str(folder / "start.phi"),
        "data": str(folder / "texts.txt"),
        "valid": str(folder / "texts.txt"),
    }


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spin") / "whole"
    settings = SMALL | start | {"learning_rate": 3e-3}
    return folder, settings, run_spin(folder, SpinConfig(**settings))


def test_training_raises_the_real_over_the_own(whole):
    folder, _, results = whole
    assert results["measured"]["base"]["preference"] is None
    for name in ("spin-1", "spin-2"):
        found = results["measured"][name]
        assert found["margin"] > 0
        assert 0.5 < found["preference"] <= 1
        assert 0 < found["divergence"]["2"] <= 1
    assert json.loads((folder / "results.json").read_bytes()) == results


def test_an_iterate_is_the_reference_of_the_next(whole):
    """Verdicts of spin-2 worked out anew: its own model over spin-1's, on spin-1's text."""
    folder, _, results = whole
    lines = [json.loads(line) for line in (folder / "examples.jsonl").read_text().splitlines()]
    rivals = [line for line in lines if "own_ids" in line or "closes" in line]
    ends = [i for i, line in enumerate(rivals) if "closes" in line]
    names = [rivals[i]["closes"] for i in ends]
    at = names.index("held out of spin-1/00000")
    pairs = rivals[ends[at - 1] + 1 : ends[at]]
    assert len(pairs) == 4
    new, old = (load_checkpoint(folder / f"spin-{i}.phi").build() for i in (2, 1))
    margins = []
    for pair in pairs:
        gains = [
            slow_log_prob(new, row) - slow_log_prob(old, row)
            for row in (
                Row((*pair["given_ids"], *pair[f"{side}_ids"]), len(pair["given_ids"]))
                for side in ("real", "own")
            )
        ]
        margins.append(0.1 * (gains[0] - gains[1]))
    assert results["measured"]["spin-2"]["margin"] == pytest.approx(np.mean(margins), abs=1e-4)


def test_the_ids_of_a_pair_are_those_of_its_texts(whole, start):
    folder, _, _ = whole
    tokenizer = Tokenizer.from_bytes(load_checkpoint(start["checkpoint"]).tokenizer)
    lines = [json.loads(line) for line in (folder / "examples.jsonl").read_text().splitlines()]
    pairs = [line for line in lines if "own_ids" in line]
    assert len(pairs) == 2 * 6 + 3 * 4
    for pair in pairs:
        assert tokenizer.decode(pair["given_ids"][1:]) == pair["prompt"]
        real = [i for i in pair["real_ids"] if i < 299]
        assert pair["real"].startswith(tokenizer.decode(real))
        assert 1 <= len(pair["own_ids"]) <= 10


def all_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


KILLED = """
import json, os, signal, sys
from phi_train.improve.spin import SpinConfig, run_spin

left = int(sys.argv[3])

def tell(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

run_spin(sys.argv[1], SpinConfig(**json.loads(sys.argv[2])), tell=tell)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_ends_as_if_nothing_had_happened(whole, tmp_path):
    folder, settings, results = whole
    cut = tmp_path / "cut"
    for calls in (5, 11):
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, str(cut), json.dumps(settings), str(calls)],
            check=False,
        )
        assert ended.returncode == -signal.SIGKILL
    assert run_spin(cut, SpinConfig(**settings)) == results
    assert all_files(cut) == all_files(folder)


def stop_after(calls: int) -> Pause:
    asked = itertools.count(1)
    return Pause(lambda: next(asked) > calls)


@pytest.mark.parametrize("there", [True, False])
def test_it_goes_on_with_the_model_it_began_with(whole, start, tmp_path, there):
    folder, settings, results = whole
    own = tmp_path / "own.phi"
    shutil.copy(start["checkpoint"], own)
    config = SpinConfig(**{**settings, "checkpoint": str(own)})
    with pytest.raises(Stopped):
        run_spin(tmp_path / "cut", config, pause=stop_after(2))
    if there:
        shutil.copy(folder / "spin-2.phi", own)
    else:
        own.unlink()
    assert run_spin(tmp_path / "cut", config) == results


def test_other_texts_under_the_same_name_are_refused(whole, start, tmp_path):
    _, settings, _ = whole
    text = Path(start["data"]).read_text(encoding="utf-8")
    own = tmp_path / "own.txt"
    own.write_text(text, encoding="utf-8")
    config = SpinConfig(**{**settings, "data": str(own)})
    with pytest.raises(Stopped):
        run_spin(tmp_path / "cut", config, pause=stop_after(1))
    own.write_text(text.replace(" the ", " a "), encoding="utf-8")
    with pytest.raises(RunError, match="checksum_of_texts"):
        run_spin(tmp_path / "cut", config)


def test_an_unfinished_model_that_is_damaged_is_begun_anew_and_none_is_left(whole, tmp_path):
    folder, settings, results = whole
    cut = tmp_path / "cut"
    with pytest.raises(Stopped):
        run_spin(cut, SpinConfig(**settings), pause=stop_after(8))
    unfinished = cut / "spin-1.unfinished.phi"
    assert load_checkpoint(unfinished).step > 0, "saved when it was stopped"
    unfinished.write_bytes(unfinished.read_bytes()[:-100])
    assert run_spin(cut, SpinConfig(**settings)) == results
    unfinished.touch()
    assert run_spin(cut, SpinConfig(**settings)) == results
    assert all_files(cut) == all_files(folder)


def test_mistakes_are_named(whole, start, tmp_path):
    folder, settings, _ = whole
    with pytest.raises(RunError, match=r"begun with scale 0.1, not 0.2"):
        run_spin(folder, SpinConfig(**settings | {"scale": 0.2}))
    with pytest.raises(DataError, match="are needed"):
        run_spin(tmp_path, SpinConfig(**settings | {"pairs": 1000}))
    with pytest.raises(ConfigError, match="more than the model's context of 64"):
        run_spin(tmp_path / "long", SpinConfig(**settings | {"max_tokens": 60}))
    for wrong in ({"pairs": 0}, {"held_out": 1}, {"scale": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            SpinConfig(**start | wrong)
