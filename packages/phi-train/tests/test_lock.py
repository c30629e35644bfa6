"""One run in a folder at a time, and a lock that a crash gives back."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from phi_train import RunError, train
from phi_train.lock import RunLock
from phi_train.progress import Quiet

HOLD = """
import sys, time
from pathlib import Path
from phi_train.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run.lock")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_held_and_given_back(tmp_path):
    path = tmp_path / "run.lock"
    with RunLock(path) as lock:
        lock.acquire()  # a second time: nothing happens
        assert path.read_text() == f"{os.getpid()}\n"
        with pytest.raises(RunError, match=f"in use by the run of process {os.getpid()}"):
            RunLock(path).acquire()
    assert not path.exists()
    lock.release()
    with RunLock(path):
        pass


def test_another_process_is_named_and_its_death_releases(holder, tmp_path):
    lock = RunLock(tmp_path / "run.lock")
    message = f"{re.escape(str(tmp_path))} is in use by the run of process {holder.pid}: wait"
    with pytest.raises(RunError, match=message):
        lock.acquire()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run.lock").exists()  # what is left of it means nothing
    with lock:
        assert (tmp_path / "run.lock").read_text() == f"{os.getpid()}\n"


def test_a_lock_taken_from_a_file_that_is_gone_is_taken_again(tmp_path, monkeypatch):
    """Its owner leaves between our open and our lock."""
    path = tmp_path / "run.lock"
    real, opened = os.open, []

    def slow_open(*args, **options):
        handle = real(*args, **options)
        if not opened:
            path.unlink()
        opened.append(handle)
        return handle

    monkeypatch.setattr(os, "open", slow_open)
    with RunLock(path):
        assert len(opened) == 2
        assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_forked_worker_does_not_keep_it(tmp_path):
    """A killed run's workers may live a moment longer."""
    lock = RunLock(tmp_path / "run.lock")
    lock.acquire()
    out, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(end, b"born")
        time.sleep(30)
        os._exit(0)
    try:
        assert os.read(out, 4) == b"born"
        os.close(lock._handle)  # as death does
        lock._handle = None
        with RunLock(tmp_path / "run.lock"):
            pass
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_two_runs_in_one_folder(settings):
    """The second one is refused while the first one goes on, new or resumed; nothing is touched."""
    refused = []

    class Intruder(Quiet):
        def step(self, step, **_rest):
            if step == 10:
                for resume in (False, True):
                    with pytest.raises(RunError) as caught:
                        train(settings(), resume=resume)
                    refused.append(str(caught.value))

    result = train(settings(), progress=Intruder())
    assert "already holds a run" in refused[0]
    assert f"{settings().out} is in use by the run of process {os.getpid()}" in refused[1]
    alone = train(settings("alone"))
    assert result.folder.last.read_bytes() == alone.folder.last.read_bytes()
    assert not result.folder.lock.exists()


def test_two_new_runs_at_the_same_time(settings, monkeypatch):
    """Both found the folder unused; the one that is later to open it finds the other there."""
    from phi_train import loop  # noqa: PLC0415

    real = loop.open_run_data

    def slowly(*args):
        monkeypatch.setattr(loop, "open_run_data", real)
        train(settings())
        return real(*args)

    monkeypatch.setattr(loop, "open_run_data", slowly)
    with pytest.raises(RunError, match="already holds a run"):
        train(settings())


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def unsupported(_handle):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("phi_train.lock._lock", unsupported)
    with RunLock(tmp_path / "run.lock"), RunLock(tmp_path / "run.lock"):
        pass
