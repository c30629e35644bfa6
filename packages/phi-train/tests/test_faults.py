"""Never lose a night: whatever breaks a run off, it goes on to the same last bit.

In the short form a run is killed 3 times at random. The long form, 25 times and at every system
call: PHI_LONG=1 pytest packages/phi-train/tests/test_faults.py
"""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sysconfig
import time
from pathlib import Path

import pytest

from phi_model import load_checkpoint
from phi_train import DataError, RunError, train
from phi_train.prepare import prepare

PROGRAM = Path(sysconfig.get_path("scripts")) / "phi-train"
KILLS = 25 if os.environ.get("PHI_LONG", "0") not in ("", "0") else 3
CLOCKS = {"seconds", "data", "model", "optimizer"}

can_kill = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")


def _outcome(folder):
    """What must be equal: the weights of all kinds, and the log but for its clocks."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    log = [{k: v for k, v in line.items() if k not in CLOCKS} for line in lines]
    files = [folder / "last.phi", folder / "best.phi"]
    return [path.read_bytes() for path in files], log


def _left(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def whole(settings):
    """Makes the run that is never interrupted, and gives its outcome and files."""

    def make(**changes):
        folder = train(settings("whole", **changes)).folder.path
        return _outcome(folder), _left(folder)

    return make


# killed for good


@can_kill
@pytest.mark.parametrize("changes", [{"workers": "2"}, {"optimizer": "schedule-free"}])
def test_random_kills(settings, whole, tmp_path, changes):
    """A real process, killed at random moments; the last attempt is left alone."""
    steps = 240 + 60 * KILLS
    often = {"checkpoint_every": 7, "eval_every": 11, "sample_every": 100}
    changes = {"steps": steps, **often, **changes}
    outcome, files = whole(**changes)
    config = settings(**changes)
    path = tmp_path / "settings.toml"
    path.write_text(config.to_toml())
    command = [str(PROGRAM), "run", "--config", str(path), "--resume"]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    rng = random.Random(4)
    killed = 0
    reached = []
    while killed < KILLS:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        before = _steps_in(config)
        deadline = time.monotonic() + 60
        while process.poll() is None and _steps_in(config) <= before:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.03))
        assert process.poll() is None, f"it came to its end before {KILLS} kills"
        process.send_signal(signal.SIGKILL)
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == -signal.SIGKILL, errors
        killed += 1
        reached.append(_steps_in(config))
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert _outcome(Path(config.out)) == outcome
    assert _left(Path(config.out)) == files
    assert len(set(reached)) == KILLS, "every attempt came to another step"


def _steps_in(config):
    """The last whole line's step in metrics.jsonl."""
    try:
        lines = Path(config.out, "metrics.jsonl").read_bytes().splitlines()
    except FileNotFoundError:
        return 0
    for line in reversed(lines):
        try:
            return json.loads(line)["step"]
        except ValueError:
            continue
    return 0


@can_kill
@pytest.mark.parametrize("call", ["fsync", "replace", "link", "unlink", "write"])
def test_a_power_cut_at_any_system_call(settings, whole, monkeypatch, call):
    """Before the n-th of the calls that writing is made of, for each n: between write and rename,
    between two names, between two files.
    """
    changes = {"steps": 12, "checkpoint_every": 3, "eval_every": 2}
    outcome, files = whole(**changes)
    cuts = 0
    for n in range(1, 200, 1 if KILLS > 10 else 3):
        out = f"run-{n}"
        pid = os.fork()
        if pid == 0:
            try:
                _die_at(monkeypatch, call, n)
                train(settings(out, **changes))
            finally:
                os._exit(0)
        status = os.waitpid(pid, 0)[1]
        if os.waitstatus_to_exitcode(status) != 9:
            break  # the run makes fewer such calls
        cuts += 1
        folder = train(settings(out, **changes), resume=True).folder.path
        assert _outcome(folder) == outcome
        assert _left(folder) == files
    assert cuts >= (1 if call == "write" else 2)


def _die_at(monkeypatch, name, n):
    real, calls = getattr(os, name), 0

    def dying(*args, **options):
        nonlocal calls
        calls += 1
        if calls == n:
            os._exit(9)
        return real(*args, **options)

    monkeypatch.setattr(os, name, dying)


# a disk that is full for a while


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_at_any_write(settings, whole, monkeypatch, call):
    changes = {"steps": 12, "checkpoint_every": 3, "eval_every": 4}
    outcome, files = whole(**changes)
    real = getattr(os, call)
    failures = 0
    for n in range(1, 200, 1 if KILLS > 10 else 4):
        left = n

        def failing(*args):
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args)

        config = settings(f"run-{n}", **changes)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            caught = _os_error_of(config)
        if left > 0:
            break
        if caught is not None:  # there are calls that a run can do without
            assert (caught.errno, caught.filename is None) == (errno.ENOSPC, False)
            failures += 1
        assert not [name for name in _left(Path(config.out)) if name.endswith("~")]
        folder = train(config, resume=True).folder.path
        assert _outcome(folder) == outcome
        assert _left(folder) == files
    assert failures >= 3


def _os_error_of(config):
    try:
        train(config)
    except OSError as error:
        return error
    return None


# damaged files


def _cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def _empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _flip, _empty])
def test_a_damaged_checkpoint_is_passed_over(settings, whole, stop_at, listener, damage):
    """last.phi and the numbered one are two names of one file: both go, the one before is left."""
    outcome, files = whole()
    stopped = train(settings(), progress=stop_at(19))
    damage(stopped.folder.last)
    result = train(settings(), resume=True, progress=listener)
    assert listener.lines[0].startswith("warning: ")
    assert "last.phi is" in listener.lines[0]
    passed_over = [line for line in listener.lines if line.startswith("going on from")]
    assert passed_over == [f"going on from {stopped.folder.checkpoint(16)} instead"]
    assert any("after step 16" in line for line in listener.lines)
    assert _outcome(result.folder.path) == outcome
    # step 19 was a stop of its own
    assert set(_left(result.folder.path)) - set(files) <= {"checkpoints/step-000019.phi"}


def test_the_newest_is_found_wherever_it_is(settings, whole, stop_at, listener):
    """last.phi is gone, or older than the numbered ones, as after a cut between two names."""
    outcome, _ = whole()
    folder = train(settings(), progress=stop_at(20)).folder
    old = folder.checkpoint(8).read_bytes()
    folder.last.unlink()
    folder.last.write_bytes(old)
    result = train(settings(), resume=True, progress=listener)
    assert f"resuming {folder.path} after step 20" in listener.lines
    assert _outcome(result.folder.path) == outcome


def test_nothing_sound_is_told_and_left_alone(settings, stop_at):
    folder = train(settings(), progress=stop_at(20)).folder
    for path in {folder.last, *folder.numbered()}:
        _cut(path)
    before = {name: (folder.path / name).read_bytes() for name in _left(folder.path)}
    with pytest.raises(RunError, match=r"last\.phi .* no other checkpoint in .* is sound"):
        train(settings(), resume=True)
    assert {name: (folder.path / name).read_bytes() for name in _left(folder.path)} == before


def test_a_missing_shard(settings, whole, stop_at, corpus, tmp_path):
    prepared = tmp_path / "prepared"
    prepare(str(corpus), prepared, vocab_size=270)
    outcome, _ = whole(data=str(prepared))
    config = settings(data=str(prepared))
    train(config, progress=stop_at(10))
    shard = max(prepared.glob("train*"), key=lambda path: path.stat().st_size)
    content = shard.read_bytes()
    for broken in (None, content[:-2]):
        shard.unlink() if broken is None else shard.write_bytes(broken)
        with pytest.raises(DataError, match=shard.name):
            train(config, resume=True)
    shard.write_bytes(content)
    assert _outcome(train(config, resume=True).folder.path) == outcome


# where there is nothing to resume


@pytest.mark.parametrize("there", [True, False])
def test_resuming_nothing_starts_anew(settings, whole, there):
    outcome, files = whole()
    if there:
        Path(settings().out).mkdir()
    folder = train(settings(), resume=True).folder.path
    assert _outcome(folder) == outcome
    assert _left(folder) == files


def test_a_finished_run_is_left_as_it_is_at_once(settings, listener, corpus):
    first = train(settings(baselines=True))
    before = {
        name: (first.folder.path / name).stat().st_mtime_ns for name in _left(first.folder.path)
    }
    corpus.unlink()  # it is not even read
    again = train(settings(baselines=True), resume=True, progress=listener)
    assert again == first.__class__(**{**first.__dict__, "folder": again.folder})
    assert listener.lines == [f"{first.folder.path} is finished: all of its 24 steps are made"]
    assert before == {
        name: (first.folder.path / name).stat().st_mtime_ns for name in _left(first.folder.path)
    }


def test_killed_while_it_measured_the_end(settings, whole, monkeypatch):
    """Everything is trained and saved, but the final line is missing."""
    outcome, files = whole()
    with monkeypatch.context() as patch:
        patch.setattr("phi_train.loop._Run._baselines", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(settings(baselines=True))
    folder = Path(settings().out)
    assert load_checkpoint(folder / "last.phi").step == 24
    train(settings(), resume=True)
    assert _outcome(folder) == outcome
    assert _left(folder) == files
