"""A trial that is looked at on its way: whatever lies in its folder, its outcome is the same."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from phi_train.experiment.execute import Task, execute
from phi_train.experiment.plan import trial_of
from phi_train.run_folder import RunFolder


@pytest.fixture
def task(page, tiny, texts, tmp_path):
    """Of a share of 60 updates, in a folder of that name."""
    experiment = page("tiny", tiny(steps=60, eval_tokens=200, checkpoint_every=5, **texts))

    def make(name, share):
        trial = trial_of(experiment, experiment.baseline_arm, 0, part="search", share=share)
        return Task(trial=trial, work=str(tmp_path / name), keep=True)

    return make


def _told(outcome):
    return replace(outcome, seconds=0.0)


def test_a_kill_between_a_checkpoint_and_its_name_does_not_pass_the_stage(task, monkeypatch):
    undisturbed = execute(task("undisturbed", 0.25))
    assert undisturbed.steps == 15
    publish = RunFolder.publish_last

    def killed(folder, checkpoint):
        if checkpoint.stem == "step-000015":
            raise KeyboardInterrupt
        publish(folder, checkpoint)

    monkeypatch.setattr(RunFolder, "publish_last", killed)
    with pytest.raises(KeyboardInterrupt):
        execute(task("killed", 0.25))
    monkeypatch.undo()
    assert _told(execute(task("killed", 0.25))) == _told(undisturbed)
    for share in (0.5, 1.0):
        after = execute(task("killed", share))
        assert _told(after) == _told(execute(task("undisturbed", share)))


def test_a_kill_while_the_run_is_removed_leaves_no_part_of_it(task, monkeypatch):
    wanted = execute(replace(task("undisturbed", 1.0), keep=False))
    killed = replace(task("killed", 1.0), keep=False)
    assert wanted.curves["loss"]
    remove = shutil.rmtree

    def cut_off(path, **kwargs):
        if killed.folder.name not in str(path) or not Path(path).exists():
            remove(path, **kwargs)
            return
        next(Path(path).rglob("metrics.jsonl")).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", cut_off)
    with pytest.raises(KeyboardInterrupt):
        execute(killed)
    monkeypatch.setattr(shutil, "rmtree", remove)
    assert _told(execute(killed)) == _told(wanted)
    assert not [path for path in Path(killed.work).rglob("*") if path.name.endswith("~")]


def test_what_a_kill_left_unfinished_is_swept(task):
    first = task("swept", 0.25)
    execute(first)
    unfinished = first.folder / "checkpoints" / ".step-000015.phi.abc~"
    unfinished.touch()
    execute(first)
    assert not unfinished.exists()


def test_a_stage_is_measured_anew_where_only_a_later_one_is_left(task):
    first, whole = (execute(task("whole", share)) for share in (0.25, 1.0))
    assert (first.steps, whole.steps) == (15, 60)
    assert _told(execute(task("whole", 0.25))) == _told(first)
    assert _told(execute(task("whole", 1.0))) == _told(whole)
