"""A trial that is looked at on its way: whatever lies in its folder, its outcome is the same."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from phi_train import loop
from phi_train.errors import Stopped
from phi_train.experiment.execute import Task, discard, execute
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
    wanted = execute(task("undisturbed", 1.0))
    killed = replace(task("killed", 1.0), keep=False)
    outcome = execute(killed)
    assert outcome.curves["loss"]
    remove = shutil.rmtree

    def cut_off(path, **kwargs):
        if killed.folder.name not in str(path) or not Path(path).exists():
            remove(path, **kwargs)
            return
        next(Path(path).rglob("metrics.jsonl")).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", cut_off)
    with pytest.raises(KeyboardInterrupt):
        discard(killed, outcome)
    monkeypatch.setattr(shutil, "rmtree", remove)
    assert _told(execute(killed)) == _told(wanted)
    discard(killed, wanted)
    assert not [path for path in (Path(killed.work) / "trials").iterdir() if path.is_dir()]


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


def test_other_data_under_the_same_name_is_another_run(task, texts):
    for share in (0.25, 1.0):  # the second is kept, and finished
        before = execute(task("work", share))
        kept = Path(texts["data"]).read_text(encoding="utf-8")
        Path(texts["data"]).write_text(kept[: len(kept) // 2], encoding="utf-8")
        after = execute(task("work", share))
        assert after.metrics != before.metrics
        assert _told(after) == _told(execute(task(f"fresh {share}", share)))
        Path(texts["data"]).write_text(kept, encoding="utf-8")


def test_other_settings_of_the_machine_go_on_with_the_same_run(task):
    first = task("work", 0.25)
    execute(first)
    config = {**first.trial.config, "guard": True}
    assert replace(first, trial=replace(first.trial, config=config)).folder == first.folder


def test_a_damaged_run_is_made_anew(task):
    wanted = execute(task("undisturbed", 0.5))
    execute(task("damaged", 0.25))
    for checkpoint in task("damaged", 0.25).folder.rglob("*.phi"):
        with checkpoint.open("r+b") as file:
            file.truncate(100)
    assert _told(execute(task("damaged", 0.5))) == _told(wanted)


def test_damaged_shards_are_prepared_anew(task):
    wanted = execute(task("work", 0.5))
    shutil.rmtree(task("work", 0.5).folder)
    (shards,) = Path(task("work", 0.5).work).rglob("train.tokens")
    shards.write_bytes(shards.read_bytes()[:-10])
    assert _told(execute(task("work", 0.5))) == _told(wanted)


def test_a_full_disk_stops_a_trial_and_is_not_its_outcome(task, monkeypatch):
    wanted = execute(task("undisturbed", 1.0))
    save = loop.save_checkpoint

    def full(path, *args, **kwargs):
        if Path(path).stem == "step-000030":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(path, *args, **kwargs)

    monkeypatch.setattr(loop, "save_checkpoint", full)
    with pytest.raises(Stopped, match="No space left on device"):
        execute(task("full", 1.0))
    monkeypatch.undo()
    assert (task("full", 1.0).folder / "checkpoints" / "step-000025.phi").exists()
    assert _told(execute(task("full", 1.0))) == _told(wanted)


def test_how_it_diverged_does_not_depend_on_where_it_was_stopped(page, tiny, texts, tmp_path):
    often = {"steps": 60, "eval_tokens": 200, "checkpoint_every": 0}
    experiment = page("wild", tiny(learning_rate=1e30, **often, **texts))
    trial = trial_of(experiment, experiment.baseline_arm, 0)
    whole, stopped = (Task(trial=trial, work=str(tmp_path / name)) for name in ("whole", "stopped"))
    wanted = execute(whole)
    assert wanted.state == "diverged"
    with pytest.raises(Stopped):
        execute(stopped, lambda: True)  # after its first step
    assert (stopped.folder / "last.phi").exists()
    assert _told(execute(stopped)) == _told(wanted)
