"""A real Dask scheduler and real workers on this machine, one of them killed in its trial."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from phi_train import ConfigError
from phi_train.experiment import results_of, run_study
from phi_train.experiment.cluster import cluster_workers

PAGE = """
metric = "loss"
function = "far.py:train"
seeds = 2
[base]
height = 1.0
[arms.low]
[arms.high]
height = 2.0
[arms.kills]
what = "kill"
[arms.wrong]
what = "crash"
"""
# the first process that gets the trial dies as if the battery had failed; the second finishes
FAR = """
import os, signal, time
from pathlib import Path

def train(config, seed, folder, stop):
    here = Path(__file__).parent
    if config.get("what") == "kill" and seed == 0 and not (here / "killed").exists():
        (here / "killed").write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    if config.get("what") == "crash":
        raise ValueError("no luck")
    time.sleep(0.2)
    return {"loss": config["height"] + seed / 10}
"""

needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="distributed is not installed"
)


@pytest.fixture
def started(tmp_path):
    """Starts a program, its output in a file; ends all of them."""
    running = []

    def start(name, *words):
        log = tmp_path / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", *words],
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=tmp_path,
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            )
        running.append(process)
        return process, log

    yield start
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@needs_dask
def test_a_worker_that_is_killed_gives_its_trial_back(started, page, tmp_path):
    _, log = started("scheduler", *_SCHEDULER)
    address = _said(log, r"tcp://127\.0\.0\.1:\d+")
    workers = [
        started(f"worker-{i}", "distributed.cli.dask_worker", address, *_WORKER)[0]
        for i in range(2)
    ]
    experiment = page("far", PAGE, code=FAR)
    session = run_study(
        experiment, work=tmp_path / "work", make_workers=cluster_workers(address), seconds=100
    )
    assert (session.made, session.reason) == (8, "done")
    victim = int((tmp_path / "killed").read_text())
    assert [w.pid for w in workers if w.poll() == -signal.SIGKILL] == [victim]
    table = {(r.trial.arm, r.trial.seed): r.outcome for r in results_of(experiment)}
    losses = {k: o.metrics["loss"] for k, o in table.items() if o.state == "finished"}
    assert losses == {
        ("low", 0): 1.0,
        ("low", 1): 1.1,
        ("high", 0): 2.0,
        ("high", 1): 2.1,
        ("kills", 0): 1.0,
        ("kills", 1): 1.1,
    }
    assert table["wrong", 0].error == "ValueError: no luck"


_SCHEDULER = (
    *("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"),
    "--no-show",
)
_WORKER = ("--nthreads", "1", "--no-nanny", "--host", "127.0.0.1", "--no-dashboard")


def _said(log, pattern):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := re.search(pattern, log.read_text(errors="replace")):
            return found[0]
        time.sleep(0.05)
    raise AssertionError(log.read_text(errors="replace"))


@needs_dask
def test_a_scheduler_that_does_not_answer_is_told(monkeypatch):
    monkeypatch.setattr("phi_train.experiment.cluster.CONNECT", 0.5)
    with pytest.raises(ConfigError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        cluster_workers("tcp://127.0.0.1:9")(lambda: False)


def test_without_dask_the_command_that_installs_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"pip install 'phi-train\[cluster\]'"):
        cluster_workers("tcp://127.0.0.1:9")(lambda: False)
