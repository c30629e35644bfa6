"""Runs: equal to the last bit, stopped and resumed, diverging, and learning something."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from phi_model import load_checkpoint
from phi_tokenizer import Tokenizer
from phi_train import ConfigError, DataError, Diverged, RunError, TrainConfig, loop, train
from phi_train.learner import Learner
from phi_train.progress import Quiet


class StopAt(Quiet):
    """Asks the run to stop, as Ctrl-C does, when so many updates are done."""

    def __init__(self, step):
        self.at = step

    def step(self, step, **_rest):
        if step == self.at:
            signal.raise_signal(signal.SIGINT)


class TerminateAt(StopAt):
    """As `kill` and a shutdown ask."""

    def step(self, step, **_rest):
        if step == self.at:
            signal.raise_signal(signal.SIGTERM)


class BreakAt(StopAt):
    """Ends the run with no time to save, as a crash does."""

    def step(self, step, **_rest):
        if step == self.at:
            raise InterruptedError("pulled the plug")


class Listener(Quiet):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def _bytes(result):
    return result.folder.last.read_bytes(), result.folder.best.read_bytes()


def _log(result, *, timed=False):
    lines = [json.loads(line) for line in result.folder.metrics.read_text().splitlines()]
    clocks = {"seconds", "data", "model", "optimizer"}
    return lines if timed else [{k: v for k, v in one.items() if k not in clocks} for one in lines]


def _files(folder: Path):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_run_leaves_its_folder(settings):
    result = train(settings())
    assert result.finished
    assert result.step == 24
    assert _files(result.folder.path) == [
        "best.phi",
        "checkpoints/step-000008.phi",
        "checkpoints/step-000016.phi",
        "checkpoints/step-000024.phi",
        "config.toml",
        "environment.json",
        "last.phi",
        "metrics.jsonl",
        "tokenizer.json",
    ]
    assert TrainConfig.from_dict(TrainConfig.read(result.folder.config)) == settings()
    checkpoint = load_checkpoint(result.folder.last)
    assert checkpoint.step == 24
    assert checkpoint.tokenizer == result.folder.tokenizer.read_bytes()
    assert Tokenizer.from_bytes(checkpoint.tokenizer).n_vocab == 270
    assert result.folder.checkpoint(24).read_bytes() == result.folder.last.read_bytes()
    assert not [name for name in load_checkpoint(result.folder.best).tensors if "optimizer" in name]


def test_the_log_has_a_line_a_step(settings):
    result = train(settings(optimizer="adamw"))
    lines = _log(result, timed=True)
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 25))
    assert [line["tokens"] for line in steps] == [64 * n for n in range(1, 25)]
    assert all(math.isfinite(line["grad_norm"]) and line["seconds"] > 0 for line in steps)
    rates = [line["learning_rate"] for line in steps]
    assert rates[:4] == pytest.approx([0.0005, 0.001, 0.0015, 0.002])
    assert rates[-1] == pytest.approx(0.02 * 0.002)
    assert [line["step"] for line in lines if "valid_loss" in line] == [6, 12, 18, 24]
    assert lines[-1]["final_loss"] == result.evaluation.loss
    assert result.evaluation.tokens == lines[-1]["valid_tokens"]


def test_best_is_the_best_by_the_slice(settings):
    result = train(settings(learning_rate=0.05, schedule="constant", steps=30))
    slices = {line["step"]: line["valid_loss"] for line in _log(result) if "valid_loss" in line}
    best = load_checkpoint(result.folder.best)
    assert slices[best.step] == min(slices.values())
    assert best.metadata["best_loss"] == min(slices.values())


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_same_seed_gives_the_same_bytes(settings, workers):
    one, two = (train(settings(out, workers=workers)) for out in ("one", "two"))
    assert _bytes(one) == _bytes(two)
    assert _log(one) == _log(two)
    other = train(settings("other", workers=workers, seed=1))
    assert _bytes(other) != _bytes(one)


@pytest.mark.parametrize("stop", [1, 6, 8, 13, 23])
def test_stopped_and_resumed_equals_never_stopped(settings, stop):
    whole = train(settings("whole"))
    stopped = train(settings(), progress=StopAt(stop))
    assert (stopped.finished, stopped.step, stopped.evaluation) == (False, stop, None)
    assert load_checkpoint(stopped.folder.last).step == stop
    resumed = train(settings(), resume=True)
    assert resumed.finished
    assert _bytes(resumed) == _bytes(whole)
    assert _log(resumed) == _log(whole)
    assert resumed.evaluation == whole.evaluation


def test_stopped_many_times_with_workers_and_accumulation(settings):
    changes = {"workers": "2", "grad_accum": 3, "schedule": "cosine"}
    whole = train(settings("whole", **changes))
    result = train(settings(**changes), progress=TerminateAt(2))
    for stop in (5, 6, 17):
        result = train(settings(**changes), resume=True, progress=StopAt(stop))
        assert not result.finished
    result = train(settings(**changes), resume=True)
    assert _bytes(result) == _bytes(whole)
    assert _log(result) == _log(whole)


@pytest.mark.parametrize("crash", [3, 8, 14, 22])
def test_a_crash_loses_what_came_after_the_last_checkpoint_and_no_more(settings, crash):
    whole = train(settings("whole"))
    with pytest.raises(InterruptedError):
        train(settings(), progress=BreakAt(crash))
    listener = Listener()
    resumed = train(settings(), resume=True, progress=listener)
    after = crash - 1 - (crash - 1) % 8  # checkpoints are written after the report of a step
    assert any(f"after step {after}" in line for line in listener.lines) == (after > 0)
    assert _bytes(resumed) == _bytes(whole)
    assert _log(resumed) == _log(whole)


def test_resuming_a_finished_run_changes_nothing(settings):
    first = train(settings())
    before = {name: (first.folder.path / name).read_bytes() for name in _files(first.folder.path)}
    again = train(settings(), resume=True)
    assert again.evaluation == first.evaluation
    after = {name: (first.folder.path / name).read_bytes() for name in _files(first.folder.path)}
    assert after == before


def test_resuming_with_more_steps_is_kept_in_the_folder(settings):
    train(settings())
    longer = train(settings(steps=30), resume=True)
    assert longer.step == 30
    assert TrainConfig.read(longer.folder.config)["steps"] == 30
    assert [line["step"] for line in _log(longer) if "loss" in line] == list(range(1, 31))


def test_resuming_another_text_is_refused(settings, corpus):
    train(settings(), progress=StopAt(3))
    last = Path(settings().out, "last.phi").read_bytes()
    corpus.write_text(corpus.read_text() + " One more word.")
    with pytest.raises(
        RunError, match=r"stories\.txt is not the text that .*last\.phi was trained"
    ):
        train(settings(), resume=True)
    assert Path(settings().out, "last.phi").read_bytes() == last


@pytest.mark.parametrize(
    "changes", [{"seed": 7}, {"batch_size": 8}, {"grad_accum": 2}, {"batches": "epochs"},
                {"vocab_size": 999}, {"tokenizer": "other.json"}]
)  # fmt: skip
def test_a_resumed_run_keeps_what_decides_its_batches(settings, changes):
    train(settings(), progress=StopAt(3))
    before = _files(Path(settings().out))
    (name,) = changes
    with pytest.raises(RunError, match=f"was trained with {name} .*a resumed run keeps it"):
        train(settings(**changes), resume=True)
    assert _files(Path(settings().out)) == before


def test_the_best_of_another_text_is_not_the_best(settings, tmp_path, stories):
    near, other = tmp_path / "near.txt", tmp_path / "other.txt"
    near.write_text(" ".join(stories(5)))
    other.write_text("zq xj 17 " * 400)
    first = train(settings(learning_rate=0.01, valid=str(near)))
    listener = Listener()
    again = settings(learning_rate=0.01, steps=30, valid=str(other))
    second = train(again, resume=True, progress=listener)
    assert any("other held-out text" in line for line in listener.lines)
    measured = [line for line in _log(second) if "valid_loss" in line and line["step"] > 24]
    best = load_checkpoint(second.folder.best)
    assert best.step > 24
    assert best.metadata["best_loss"] == min(line["valid_loss"] for line in measured)
    assert first.evaluation.loss < best.metadata["best_loss"]
    steps = [line["step"] for line in _log(second) if "loss" in line]
    assert steps == list(range(1, 31)), "the log of the steps before is kept"


@pytest.mark.parametrize("damaged", [True, False])
def test_a_best_that_is_gone_is_made_anew(settings, damaged):
    train(settings(), progress=StopAt(13))
    best = Path(settings().out, "best.phi")
    if damaged:
        best.write_bytes(best.read_bytes()[:-50])
    else:
        best.unlink()
    listener = Listener()
    result = train(settings(), resume=True, progress=listener)
    assert any("best.phi is gone or damaged" in line for line in listener.lines)
    assert load_checkpoint(result.folder.best).step > 13


def test_resuming_needs_a_folder(settings):
    with pytest.raises(ConfigError, match="--resume needs the run's folder"):
        train(settings(out="").__class__(data="x"), resume=True)


def test_a_folder_in_use_is_refused_before_anything_is_done(settings):
    train(settings(), progress=StopAt(2))
    before = _files(Path(settings().out))
    listener = Listener()
    with pytest.raises(RunError, match="already holds a run: continue it with --resume"):
        train(settings(), progress=listener)
    assert listener.lines == []
    assert _files(Path(settings().out)) == before


def test_accumulating_equals_the_larger_batch_to_rounding(settings):
    changes = {"steps": 6, "schedule": "constant"}
    large = train(settings("large", batch_size=12, **changes))
    parts = train(settings("parts", batch_size=4, grad_accum=3, **changes))
    losses = [[line["loss"] for line in _log(r) if "loss" in line] for r in (large, parts)]
    norms = [[line["grad_norm"] for line in _log(r) if "loss" in line] for r in (large, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    a, b = (load_checkpoint(r.folder.last).parameters for r in (large, parts))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-4)


def test_workers_change_rounding_only(settings):
    one, two = (train(settings(f"w{n}", workers=n, steps=6)) for n in ("1", "2"))
    a, b = ([line["loss"] for line in _log(r) if "loss" in line] for r in (one, two))
    assert a == pytest.approx(b, rel=1e-5)


def test_it_learns_a_repetitive_text(settings, tmp_path):
    """gpt-10k, a few hundred steps: far below what counting single tokens achieves."""
    path = tmp_path / "rhyme.txt"
    path.write_text("the cat sat on the mat and the dog sat on the log. " * 150)
    config = settings(
        data=str(path),
        preset="gpt-10k",
        vocab_size=262,
        steps=250,
        batch_size=8,
        seq_len=32,
        learning_rate=0.01,
        eval_every=250,
        checkpoint_every=0,
        baselines=True,
    )
    result = train(config)
    levels = result.baselines
    assert list(levels) == ["uniform", "unigram", "bigram", "trigram"]
    assert levels["uniform"] > levels["unigram"] > levels["bigram"]
    assert result.evaluation.loss < levels["unigram"] / 2


@pytest.mark.parametrize("rate", [30.0, 1e4, 1e20])
def test_a_diverging_run_keeps_its_last_good_checkpoint(settings, rate):
    """Whether it blows up in the loss, the gradient or the weights: what is saved can go on."""
    config = settings(
        learning_rate=rate, schedule="constant", steps=200, checkpoint_every=1, warmup_steps=100
    )
    try:
        train(config)
    except Diverged as error:
        message = str(error)
        assert "no longer finite at step" in message
        assert f"lower --learning-rate ({rate:g} now)" in message
        last = Path(config.out) / "last.phi"
        assert f"{last} is from before" in message if last.exists() else "no checkpoint" in message
    for path in Path(config.out).rglob("*.phi"):
        model = load_checkpoint(path).model
        assert np.isfinite(model.parameters.flat).all()
        with np.errstate(over="ignore"):
            assert math.isfinite(model.loss([[1, 2, 3]], [[2, 3, 4]]))
    for line in Path(config.out, "metrics.jsonl").read_text().splitlines():
        assert "NaN" not in line
        assert "Infinity" not in line


def test_some_rate_does_diverge(settings):
    with pytest.raises(Diverged, match="no checkpoint was saved before that"):
        train(settings(learning_rate=1e20))


@pytest.mark.parametrize("schedule", ["warmup-stable-decay", "linear", "cosine", "constant"])
def test_every_schedule_ends_where_it_should(settings, schedule):
    result = train(settings(schedule=schedule, learning_rate=1e-3, steps=12))
    rates = [line["learning_rate"] for line in _log(result) if "loss" in line]
    assert max(rates) == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-3 if schedule == "constant" else 2e-5)


def test_held_out_text_of_its_own(settings, tmp_path, stories):
    valid = tmp_path / "valid.txt"
    valid.write_text("<|endoftext|>".join(stories(5, seed=9)))
    result = train(settings(valid=str(valid)))
    assert result.evaluation.documents == 5
    assert result.evaluation.text_bytes == sum(len(t) for t in stories(5, seed=9))


def test_a_tokenizer_of_its_own(settings, tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    result = train(settings(tokenizer=str(path)))
    assert load_checkpoint(result.folder.last).config.vocab_size == 300
    assert result.folder.tokenizer.read_bytes() == tokenizer.to_bytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no text"),
        (" \n ", "holds no text"),
        ("A short text, far too short.", "the training text has .* tokens, fewer than one window"),
    ],
)
def test_texts_that_cannot_be_used_leave_no_folder(settings, tmp_path, content, words):
    path = tmp_path / "bad.txt"
    path.write_text(content)
    with pytest.raises(DataError, match=words):
        train(settings(data=str(path), vocab_size=257, seq_len=128))
    assert not Path(settings().out).exists()


def test_mistakes_are_told_before_a_tokenizer_is_learnt(settings):
    listener = Listener()
    for changes in ({"preset": "gpt-2"}, {"model": {"n_head": 3}}):
        with pytest.raises(ValueError, match=r"gpt-2|heads"):
            train(settings(**changes), progress=listener)
    assert listener.lines == []
    assert not Path(settings().out).exists()


def test_signal_handlers_are_put_back(settings):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    train(settings(), progress=StopAt(2))
    train(settings(), resume=True)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_ctrl_c_while_the_end_is_measured_loses_nothing(settings, monkeypatch):
    whole = train(settings("whole"))
    measure = loop.evaluate

    def pressed(*args, **kwargs):
        monkeypatch.undo()
        os.kill(os.getpid(), signal.SIGINT)
        return measure(*args, **kwargs)

    once = settings("pressed", checkpoint_every=0, eval_every=10**6)
    monkeypatch.setattr(loop, "evaluate", pressed)
    stopped = train(once)
    assert (stopped.step, stopped.finished) == (24, False)
    assert load_checkpoint(stopped.folder.last).step == 24
    resumed = train(once, resume=True)
    assert resumed.finished
    assert resumed.evaluation == whole.evaluation
    assert [line["step"] for line in _log(resumed) if "valid_loss" in line] == [24]


def test_a_run_that_diverged_and_went_on_at_a_lower_rate_is_not_diverged(settings, monkeypatch):
    def lost(*_args):
        return math.nan, math.nan

    with monkeypatch.context() as broken:
        broken.setattr(Learner, "loss_and_grad", lost)
        with pytest.raises(Diverged):
            train(settings("wild"))
    resumed = train(settings("wild", learning_rate=1e-3), resume=True)
    assert resumed.finished
    assert not [line for line in _log(resumed) if "diverged" in line]
