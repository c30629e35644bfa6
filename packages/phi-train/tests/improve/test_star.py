"""STaR's parts against slow twins, its loop on a model that learns nothing, and kill -9."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest

from phi_model import ModelConfig, build_model, load_checkpoint
from phi_tokenizer import Tokenizer
from phi_train import ConfigError, RunError
from phi_train.errors import Stopped
from phi_train.improve.bootstrap import paired_bootstrap
from phi_train.improve.example_log import ExampleLog
from phi_train.improve.fit import FitSettings, fit
from phi_train.improve.pause import Pause
from phi_train.improve.rows import END_OF_TEXT, RowOrder, collate, make_row
from phi_train.improve.star import Star, run_star
from phi_train.improve.star_config import StarConfig
from phi_train.improve.task import tasks

SMALL = {
    "preset": "gpt-1k",
    "vocab_size": 300,
    "seq_len": 128,
    "events": (0, 1),
    "stories": 12,
    "rationales": 3,
    "base_steps": 6,
    "iterations": 2,
    "tasks": 5,
    "temperatures": (0.8,),
    "steps": 4,
    "batch_size": 4,
    "development": 3,
    "test": 4,
    "votes": 2,
    "max_tokens": 12,
}


@pytest.fixture(scope="module")
def some_tasks():
    return list(islice(tasks(seed=1, events=(0, 1, 2, 3), side="train"), 60))


@pytest.fixture(scope="module")
def tokenizer(some_tasks):
    texts = [t.hinted + t.completion for t in some_tasks]
    return Tokenizer.train(texts, vocab_size=300, special_tokens=[END_OF_TEXT])


@pytest.fixture(scope="module")
def rows(some_tasks, tokenizer):
    return [make_row(tokenizer, t.prompt, t.completion) for t in some_tasks]


def new_model(tokenizer):
    return build_model(ModelConfig.preset("gpt-1k", vocab_size=tokenizer.n_vocab, seq_len=160))


# rows


def test_a_row_is_the_text_and_only_its_completion_is_learnt(some_tasks, tokenizer, rows):
    for task, row in zip(some_tasks, rows, strict=True):
        end = tokenizer.special_tokens[END_OF_TEXT]
        assert (row.ids[0], row.ids[-1]) == (end, end)
        assert tokenizer.decode(list(row.ids[1 : row.n_given])) == task.prompt
        assert tokenizer.decode(list(row.ids[row.n_given : -1])) == task.completion


def test_a_batch_s_loss_is_the_mean_over_completions_alone(tokenizer, rows):
    """The slow twin takes one row at a time, unpadded, and adds up what follows the prompt."""
    model = new_model(tokenizer)
    nats, count = 0.0, 0
    for row in rows[:5]:
        one = model.token_log_probs([list(row.ids[:-1])], [list(row.ids[1:])])[0]
        nats -= float(one[row.n_given - 1 :].sum())
        count += len(row.ids) - row.n_given
    loss = model.loss_and_grad(*collate(rows[:5]))
    assert loss == pytest.approx(nats / count, rel=1e-5)


def test_every_epoch_shows_every_row_once(rows):
    order = RowOrder(rows, batch_size=10, seed=3)
    epochs = [[row for step in range(6) for row in order.batch(6 * e + step)] for e in range(3)]
    for epoch in epochs:
        assert sorted(r.ids for r in epoch) == sorted(r.ids for r in rows)
    assert epochs[0] != epochs[1]
    assert RowOrder(rows, batch_size=10, seed=3).batch(14) == order.batch(14)


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(ConfigError, match="no example was kept"):
        RowOrder([], batch_size=2, seed=0)


# training


def test_fit_learns_and_an_interrupted_one_ends_with_the_same_bytes(tmp_path, tokenizer, rows):
    settings = FitSettings(steps=30, batch_size=8, learning_rate=3e-2, save_every=7)
    options = {"seed": 2, "tokenizer": tokenizer.to_bytes()}
    losses: list[float] = []
    fit(
        new_model(tokenizer), rows, settings, path=tmp_path / "whole.phi", pause=Pause(),
        tell=lambda _step, _of, loss: losses.append(loss), **options,
    )  # fmt: skip
    assert losses[-1] < 0.8 * losses[0]

    path = tmp_path / "cut.phi"
    for stop_after in (3, 9, 4):
        calls = iter(range(stop_after))
        pause = Pause(stopped=lambda calls=calls: next(calls, None) is None)
        with pytest.raises(Stopped):
            fit(new_model(tokenizer), rows, settings, path=path, pause=pause, **options)
    fit(new_model(tokenizer), rows, settings, path=path, pause=Pause(), **options)
    assert path.read_bytes() == (tmp_path / "whole.phi").read_bytes()
    assert not list(tmp_path.glob("*unfinished*"))


def test_a_finished_fit_is_read_not_repeated(tmp_path, tokenizer, rows):
    path = tmp_path / "model.phi"
    options = {"seed": 2, "tokenizer": tokenizer.to_bytes(), "path": path, "pause": Pause()}
    fit(new_model(tokenizer), rows, FitSettings(steps=2), **options)
    content = path.read_bytes()
    model = new_model(tokenizer)
    fit(model, rows, FitSettings(steps=50), **options)
    assert path.read_bytes() == content
    saved = load_checkpoint(path).parameters
    assert all(np.array_equal(model.parameters[name], saved[name]) for name in saved)


# the log of examples


def test_a_group_cut_short_is_as_if_never_written(tmp_path):
    path = tmp_path / "examples.jsonl"
    log = ExampleLog(path)
    log.add("a/1", [{"x": 1}, {"x": 2}])
    whole = path.read_bytes()
    log.add("a/2", [{"x": 3}])
    content = path.read_bytes()
    for cut in range(len(whole), len(content)):
        path.write_bytes(content[:cut])
        opened = ExampleLog(path)
        assert opened.get("a/1") == [{"x": 1}, {"x": 2}]
        assert opened.get("a/2") is None
        opened.add("a/2", [{"x": 3}])
        assert path.read_bytes() == content
    assert ExampleLog(path).of("a/") == [{"x": 1}, {"x": 2}, {"x": 3}]
    assert ExampleLog(path).of("b") == []


# the interval


def test_the_interval_is_that_of_a_plain_bootstrap():
    rng = Random(5)
    ours = [int(rng.random() < 0.7) for _ in range(500)]
    base = [int(rng.random() < 0.5) for _ in range(500)]
    found = paired_bootstrap(ours, base)
    pairs = list(zip(ours, base, strict=True))
    means = sorted(
        sum(a - b for a, b in (rng.choice(pairs) for _ in pairs)) / 500 for _ in range(2000)
    )
    assert found.mean == pytest.approx(sum(a - b for a, b in pairs) / 500)
    assert found.low == pytest.approx(means[50], abs=0.008)
    assert found.high == pytest.approx(means[1949], abs=0.008)
    assert found.low > 0


def test_equal_results_differ_by_nothing():
    found = paired_bootstrap([1, 0, 1], [1, 0, 1])
    assert (found.mean, found.low, found.high) == (0, 0, 0)
    with pytest.raises(ConfigError, match="3 values and 2"):
        paired_bootstrap([1, 0, 1], [1, 0])


# the loop


class Script:
    """Says the right thing to the tasks numbered n when asked in the way n was told to yield to."""

    def __init__(self, yields: dict[str, tuple[float, bool]]) -> None:
        self.yields, self.calls = yields, []

    def __call__(self, prompts, *, max_tokens, temperature, seed):  # noqa: ARG002
        self.calls.append((temperature, len(prompts)))
        told = []
        for prompt in prompts:
            answer, when = next(v for k, v in self.yields.items() if prompt.startswith(k))
            said = ("hint" if "\nHint: " in prompt else temperature) == when
            told.append(f" I think.\nAnswer: {answer if said else 'nobody'}")
        return told


def test_failures_are_retried_and_then_rationalised(tmp_path):
    config = StarConfig(**SMALL | {"tasks": 5, "temperatures": (0.6, 0.8, 1.0)})
    star = Star(tmp_path, config, workers=1, pause=Pause(), tell=lambda *_: None)
    some = list(islice(tasks(seed=9, events=(1,), side="train"), 6))
    when = [0.0, 0.6, 0.8, 1.0, "hint", "never"]
    script = Script({t.story: (t.answer, w) for t, w in zip(some, when, strict=True)})
    made = star._try_hard(script, some, "star-1/0000")
    assert script.calls == [(0.0, 6), (0.6, 5), (0.8, 4), (1.0, 3), (0.0, 2)]
    kept = [(one["story"], one["how"]) for one in made if one["kept"]]
    names = ["temperature 0", "temperature 0.6", "temperature 0.8", "temperature 1", "hint"]
    assert kept == list(zip([t.story for t in some[:5]], names, strict=True))
    assert len(made) == 6 + 5 + 4 + 3 + 2  # the failures are kept on record too

    unverified = star._try_once(script, some, "unverified-1/0000")
    assert [one["kept"] for one in unverified] == [True] * 6
    assert [one["right"] for one in unverified] == [True] + [False] * 5

    star.tokenizer = star._tokenizer()
    star.folder.examples.add("star-1/0000", made)
    rows = star._kept("star", 1)
    texts = [star.tokenizer.decode(list(row.ids[1:-1])) for row in rows]
    assert texts == [f"{t.prompt} I think.\nAnswer: {t.answer}" for t in some[:5]]


def test_a_majority_is_the_answer_given_most_often(tmp_path):
    config = StarConfig(**SMALL | {"votes": 3, "test": 2})
    star = Star(tmp_path, config, workers=1, pause=Pause(), tell=lambda *_: None)
    star.test = list(islice(tasks(seed=9, events=(1,), side="test"), 2))
    right = f"Answer: {star.test[0].answer}"
    says = iter(["Answer: a", "Answer: b", right, "Answer: c", right, "no answer"])
    star._speaker = lambda _: lambda prompts, **_: ["\n" + next(says) for _ in prompts]
    star._vote("base")
    found = star.folder.examples.of("majority of base/")
    assert [one["answer"] for one in found] == [star.test[0].answer, "b"]
    assert star.measured["majority of base"]["accuracy"] == 0.5


def all_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run from start to end."""
    folder = tmp_path_factory.mktemp("star") / "whole"
    return folder, run_star(folder, StarConfig(**SMALL))


def test_the_results_are_those_of_the_examples(whole):
    folder, results = whole
    assert json.loads((folder / "results.json").read_bytes()) == results
    lines = [json.loads(line) for line in (folder / "examples.jsonl").read_text().splitlines()]
    groups: dict[str, list[dict]] = {}
    pending: list[dict] = []
    for line in lines:
        if "closes" in line:
            groups.setdefault(line["closes"].split("/")[0], []).extend(pending)
            pending = []
        else:
            pending.append(line)
    names = {"base", "star-1", "star-2", "unverified-1", "unverified-2", "few", "direct"}
    assert names < results["measured"].keys()
    for name in names:
        made = groups[f"test of {name}"]
        assert len(made) == 4
        assert results["measured"][name]["accuracy"] == sum(e["right"] for e in made) / 4
    assert results["over_base"]["star-2"]["pairs"] == 4
    held_out = {one["story"] for one in groups["test of base"]}
    used = {one["story"] for name in ("star-1", "star-2") for one in groups[name]}
    assert not held_out & used
    assert len({one["story"] for one in groups["star-1"]} & used) == 5


KILLED = """
import json, os, signal, sys
from phi_train.improve.star import run_star
from phi_train.improve.star_config import StarConfig

left = int(sys.argv[3])

def tell(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

run_star(sys.argv[1], StarConfig(**json.loads(sys.argv[2])), tell=tell)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_ends_as_if_nothing_had_happened(whole, tmp_path):
    folder, results = whole
    cut = tmp_path / "cut"
    for calls in (5, 11, 17):
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, str(cut), json.dumps(SMALL), str(calls)], check=False
        )
        assert ended.returncode == -signal.SIGKILL
    assert run_star(cut, StarConfig(**SMALL)) == results
    assert all_files(cut) == all_files(folder)


def test_a_folder_keeps_its_settings(whole):
    folder, _ = whole
    with pytest.raises(RunError, match="was begun with steps 4, not 5"):
        run_star(folder, StarConfig(**SMALL | {"steps": 5}))


@pytest.mark.parametrize(
    "wrong", [{"tasks": 0}, {"events": ()}, {"temperatures": (0.0,)}, {"seed": -1}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        StarConfig(**SMALL | wrong)
