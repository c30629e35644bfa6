"""A study from its file to its journal: every arm and seed once, whatever happens to one."""

from __future__ import annotations

import errno
import json
import math
import os
import signal

import pytest

from phi_train import ConfigError, RunError
from phi_train.experiment import Journal, Outcome, Trial, results_of, run_study
from phi_train.experiment.builtin import NAME, builtin_search
from phi_train.experiment.run import open_final, run_search
from phi_train.learner import Learner
from phi_train.lock import RunLock

PAGE = """
metric = "loss"
function = "own.py:train"
seeds = 2
[base]
height = 1.0
[arms.low]
[arms.high]
height = 2.0
[arms.wrong]
what = "crash"
[arms.far]
what = "diverge"
[arms.endless]
what = "nan"
"""
OWN = """
import errno
import os
from pathlib import Path
from phi_train import Diverged
from phi_train.experiment import Stopped

def train(config, seed, folder, stop):
    with open(Path(__file__).with_name("calls"), "a") as file:
        print(config.get("what", config["height"]), seed, file=file)
    what = config.get("what")
    if what == "crash":
        raise ValueError("no\\nluck")
    if what == "diverge":
        raise Diverged("the loss is no longer finite")
    if what == "stop":
        (folder / "saved").write_text("x")
        if stop():
            raise Stopped
    if what == "die" and not (folder / "died").exists():
        (folder / "died").write_text("x")
        os._exit(3)
    if what == "full" and Path(__file__).with_name("full").exists():
        raise OSError(errno.ENOSPC, "No space left on device")
    if what == "always die":
        os._exit(3)
    loss = float("nan") if what == "nan" else config["height"] + seed / 10
    curve = [[i, 1 / (i + 1)] for i in range(1000)]
    return {"loss": loss, "steps": 7, "parameters": 5, "curves": {"loss": curve}}
"""


@pytest.fixture
def study(page):
    return lambda text=PAGE: page("own", text, code=OWN)


def _table(experiment):
    return {
        (r.trial.arm, r.trial.seed): (r.outcome.state, r.outcome.metrics.get("loss"))
        for r in results_of(experiment)
    }


EXPECTED = {
    ("low", 0): ("finished", 1.0),
    ("low", 1): ("finished", 1.1),
    ("high", 0): ("finished", 2.0),
    ("high", 1): ("finished", 2.1),
    ("wrong", 0): ("crashed", None),
    ("wrong", 1): ("crashed", None),
    ("far", 0): ("diverged", None),
    ("far", 1): ("diverged", None),
    ("endless", 0): ("diverged", None),
    ("endless", 1): ("diverged", None),
}


@pytest.mark.parametrize("workers", [1, 2])
def test_every_trial_has_an_outcome_and_none_is_made_twice(study, tmp_path, workers):
    experiment = study()
    session = run_study(experiment, work=tmp_path / "work", workers=workers)
    assert (session.made, session.left, session.reason) == (10, 0, "done")
    assert _table(experiment) == EXPECTED
    again = run_study(experiment, work=tmp_path / "work")
    assert again.made == 0
    assert len((tmp_path / "calls").read_text().splitlines()) == 10


def test_what_an_outcome_keeps(study, tmp_path):
    experiment = study()
    run_study(experiment, work=tmp_path / "work")
    outcomes = {(r.trial.arm, r.trial.seed): r.outcome for r in results_of(experiment)}
    low = outcomes["low", 0]
    assert (low.steps, low.parameters, set(low.metrics)) == (7, 5, {"loss"})
    curve = low.curves["loss"]
    assert len(curve) == 100
    assert (curve[0], curve[-1]) == ([0.0, 1.0], [999.0, 0.001])
    assert outcomes["wrong", 1].error == "ValueError: no luck"
    size = experiment.journal.stat().st_size
    assert size < 10 * 3000, "an experiment's journal is to be committed"


def test_changed_settings_are_other_trials_and_renamed_arms_are_not(study, tmp_path):
    run_study(study(), work=tmp_path / "work")
    renamed = study(PAGE.replace("arms.high", "arms.taller"))
    assert _table(renamed)["taller", 1] == ("finished", 2.1)
    changed = study(PAGE.replace("height = 2.0", "height = 3.0"))
    assert ("high", 0) not in _table(changed)
    assert run_study(changed, work=tmp_path / "work").made == 2
    assert _table(changed)["high", 0] == ("finished", 3.0)
    assert _table(study()) == EXPECTED, "the old ones are still known"


@pytest.mark.parametrize("kept", ["", '{"key": "x"', "\x00\x00", '[1]\n"x"\nnonsense\n{"a": '])
def test_a_torn_line_is_made_again(study, tmp_path, kept):
    experiment = study()
    run_study(experiment, work=tmp_path / "work")
    lines = experiment.journal.read_bytes().splitlines(keepends=True)
    experiment.journal.write_bytes(b"".join(lines[:-1]) + kept.encode())
    session = run_study(experiment, work=tmp_path / "work")
    assert session.made == 1
    assert _table(experiment) == EXPECTED
    assert json.loads(experiment.journal.read_bytes().splitlines()[-1])["key"]


def test_a_line_cut_anywhere(tmp_path):
    """Whatever byte a power cut ends at, what was written before is known."""
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    trials = [Trial(experiment="x", arm="a", config={}, seed=i, key=f"k{i}") for i in range(3)]
    for trial in trials:
        journal.add(trial, Outcome(state="finished", metrics={"loss": 1.5}))
    content = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for size in range(0, len(content) + 1, 5):
        path.write_bytes(content[:size])
        whole = sum(end <= size for end in ends)
        cut = Journal(path)
        assert len(cut) == whole
        cut.add(trials[2], Outcome(state="finished", metrics={"loss": 1.5}))
        known = Journal(path)
        assert known.get("k2") == Outcome(state="finished", metrics={"loss": 1.5})
        assert len(known) == max(1, whole + (whole < 3))


def test_a_process_that_dies_gives_its_trial_back(study, tmp_path):
    text = PAGE.split("[arms.low]", maxsplit=1)[0] + '[arms.low]\n[arms.die]\nwhat = "die"\n'
    text += '[arms.always]\nwhat = "always die"\n'
    experiment = study(text)
    session = run_study(experiment, work=tmp_path / "work", workers=2)
    assert session.reason == "done"
    table = _table(experiment)
    assert table["die", 0] == ("finished", 1.0)
    assert table["always", 1] == ("killed", None)
    errors = [r.outcome.error for r in results_of(experiment) if r.trial.arm == "always"]
    assert errors == ["its process died 3 times, the last time with exit code 3"] * 2


def test_what_crashed_can_be_tried_again(study, tmp_path):
    experiment = study()
    run_study(experiment, work=tmp_path / "work")
    (tmp_path / "own.py").write_text(OWN.replace('== "crash"', '== "nothing"'))
    assert run_study(experiment, work=tmp_path / "work").made == 0
    assert run_study(experiment, work=tmp_path / "work", retry=True).made == 2
    expected = EXPECTED | {("wrong", 0): ("finished", 1.0), ("wrong", 1): ("finished", 1.1)}
    assert _table(experiment) == expected
    assert run_study(experiment, work=tmp_path / "work", retry=True).made == 0


def test_a_deadline_stops_and_the_rest_is_made_later(study, tmp_path):
    text = PAGE.split("[arms.low]", maxsplit=1)[0] + '[arms.stop]\nwhat = "stop"\n'
    experiment = study(text)
    session = run_study(experiment, work=tmp_path / "work", seconds=1e-9)
    assert (session.made, session.left, session.reason) == (0, 2, "seconds")
    assert run_study(experiment, work=tmp_path / "work").made == 2


def test_a_budget_ends_a_study(study, tmp_path):
    experiment = study(PAGE + "[budget]\nsteps = 20\n")
    session = run_study(experiment, work=tmp_path / "work")
    assert session.reason == "done"
    assert 3 <= session.made < 10, "7 steps each, proposals of a window are made"
    assert run_study(experiment, work=tmp_path / "work", workers=2).made == 0


def test_what_is_not_there_is_told_before_anything_runs(study, tmp_path):
    with pytest.raises(ConfigError, match=r"own\.py defines no function 'fit'"):
        run_study(study(PAGE.replace("own.py:train", "own.py:fit")), work=tmp_path / "work")
    with pytest.raises(ConfigError, match=r"none\.py does not exist"):
        run_study(study(PAGE.replace("own.py:train", "none.py:train")), work=tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_two_sessions_of_one_experiment_are_refused(study, tmp_path):
    experiment = study()
    experiment.journal.parent.mkdir()
    with (
        RunLock(experiment.journal.with_suffix(".lock")),
        pytest.raises(RunError, match="in use by another session"),
    ):
        run_study(experiment, work=tmp_path / "work")


def test_a_journal_in_use_is_not_written(page, tiny, texts, tmp_path):
    experiment = page("searched", tiny(steps=60, **texts) + "[search]\ntrials = 1\n")
    experiment.journal.parent.mkdir()
    with RunLock(experiment.journal.with_suffix(".lock")):
        for start in (run_search, open_final):
            with pytest.raises(RunError, match="in use by another session"):
                start(experiment, work=tmp_path / "work")
        builtin_search(tmp_path)
        with (
            RunLock(tmp_path / NAME / "journal.lock"),
            pytest.raises(RunError, match="in use by another session"),
        ):
            builtin_search(tmp_path, settings={"trials": 20})
    assert not experiment.journal.exists()
    assert (tmp_path / NAME / "journal.jsonl").read_bytes().count(b"\n") == 1


def test_what_the_journal_does_not_hold_is_not_thrown_away(
    page, tiny, texts, tmp_path, monkeypatch
):
    experiment = page("kept", "seeds = 1\n" + tiny(steps=12, **texts))

    def full(*_args, **_facts):
        raise OSError(errno.ENOSPC, "No space left on device", str(experiment.journal))

    with monkeypatch.context() as disk:
        disk.setattr(Journal, "add", full)
        with pytest.raises(OSError, match="No space left"):
            run_study(experiment, work=tmp_path / "work")
    trials = tmp_path / "work" / "kept" / "trials"
    assert list(trials.glob("*/last.phi"))
    assert run_study(experiment, work=tmp_path / "work").made == 1
    assert not list(trials.glob("*/last.phi"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_ends_the_session_and_no_trial(study, tmp_path, workers):
    experiment = study(PAGE.split("[arms.wrong]", maxsplit=1)[0] + '[arms.full]\nwhat = "full"\n')
    (tmp_path / "full").touch()
    with pytest.raises(RunError, match=r"No space left on device.*the same command goes on"):
        run_study(experiment, work=tmp_path / "work", workers=workers)
    (tmp_path / "full").unlink()
    run_study(experiment, work=tmp_path / "work", workers=workers)
    assert {result.outcome.state for result in results_of(experiment)} == {"finished"}


def test_ctrl_c_at_the_last_step_of_a_trial_ends_the_session(
    page, tiny, texts, tmp_path, monkeypatch
):
    experiment = page("pressed", "seeds = 3\n" + tiny(steps=12, **texts))
    update = Learner.update

    def pressed(self, step, **numbers):
        if step == 12:
            os.kill(os.getpid(), signal.SIGINT)
        return update(self, step, **numbers)

    with monkeypatch.context() as keyboard:
        keyboard.setattr(Learner, "update", pressed)
        session = run_study(experiment, work=tmp_path / "work")
    assert (session.made, session.left, session.reason) == (0, 3, "stopped")
    assert run_study(experiment, work=tmp_path / "work").made == 3


ARMS = """
[arms.slow]
[arms.fast]
learning_rate = 0.01
[arms.wild]
learning_rate = 1e30
clip = inf
"""


def test_runs_of_phi_train(page, tiny, corpus, tmp_path):
    base = tiny(data=str(corpus), steps=12, batch_size=4, eval_every=4, baselines=True)
    experiment = page("trained", "seeds = 1\n" + base + ARMS)
    session = run_study(experiment, work=tmp_path / "work")
    assert session.made == 3
    slow, fast, wild = (r.outcome for r in results_of(experiment))
    assert wild.state == "diverged"
    assert "no longer finite" in wild.error
    for outcome in (slow, fast):
        assert outcome.state == "finished"
        assert (outcome.steps, outcome.tokens) == (12, 12 * 4 * 16)
        assert math.isfinite(outcome.metrics["bits_per_byte"])
        assert outcome.metrics["vocab_size"] == 270
        assert {"unigram", "bigram", "trigram"} <= set(outcome.metrics)
        assert [step for step, _ in outcome.curves["valid_loss"]] == [4, 8, 12]
        assert outcome.flops > 0 < outcome.seconds
        assert outcome.parameters > outcome.non_embedding > 0
    assert slow.metrics["loss"] != fast.metrics["loss"]
    assert not list((tmp_path / "work" / "trained" / "trials").glob("*/last.phi")), "not kept"
