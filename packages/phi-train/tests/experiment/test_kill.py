"""Killed at random, with all of its processes, a search comes to the ledger of one never touched.

In the short form it is killed 3 times; PHI_LONG=1 kills 20 times.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import pytest

from phi_train.experiment import Journal, read_experiment
from phi_train.experiment.report import report_of

KILLS = 20 if os.environ.get("PHI_LONG", "0") not in ("", "0") else 3
CLOCKS = {"seconds", "seconds_a_run"}
ENVIRONMENT = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
SEARCH = """
[search]
trials = {trials}
seeds = 2
more_seeds = 0
confirmation_seeds = 2
"""


@pytest.fixture
def search(page, tiny, texts):
    """Writes the page of a search of so many changes into a folder."""

    def make(folder, trials):
        base = tiny(steps=60, eval_tokens=200, checkpoint_every=5, **texts)
        page("tiny", "threshold = 0.0\n" + base + SEARCH.format(trials=trials), folder=folder)

    return make


@pytest.fixture
def command(program):
    return lambda folder, workers: [
        *(str(program), "experiment", "search", "tiny", "--folder", str(folder)),
        *("--work", str(folder / "work"), "--workers", str(workers)),
    ]


def _ledger(folder):
    rows, search, _ = report_of(read_experiment(folder / "tiny.toml"))
    assert search is not None
    return [{k: v for k, v in row.as_dict().items() if k not in CLOCKS} for row in rows]


def _outcomes(folder):
    """Of every trial, with its curves."""
    lines = Journal(folder / "journal" / "tiny.jsonl").lines
    return {line["key"]: line["outcome"] | {"seconds": 0} for line in lines if "key" in line}


@pytest.mark.skipif(not hasattr(os, "setsid"), reason="no process groups")
def test_random_kills(tmp_path, search, command):
    for name in ("whole", "killed"):
        search(tmp_path / name, 3 + KILLS // 2)
    done = subprocess.run(
        command(tmp_path / "whole", 1),
        env=ENVIRONMENT,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    journal = tmp_path / "killed" / "journal" / "tiny.jsonl"
    rng = random.Random(3)
    for kill in range(KILLS):
        process = subprocess.Popen(
            command(tmp_path / "killed", 2),
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        before, deadline = _lines(journal), time.monotonic() + 120
        while _lines(journal) <= before + 1:  # the session's own line, and an outcome
            assert process.poll() is None, (kill, process.communicate()[1])
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        os.kill(process.pid, signal.SIGKILL)  # its workers end themselves
        process.communicate(timeout=60)
    with journal.open("ab") as file:
        file.write(b'{"key": "torn')
    last = subprocess.run(
        command(tmp_path / "killed", 2),
        env=ENVIRONMENT,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert last.returncode == 0, last.stderr
    whole = _ledger(tmp_path / "whole")
    assert _ledger(tmp_path / "killed") == whole
    assert _outcomes(tmp_path / "killed") == _outcomes(tmp_path / "whole")
    assert len(whole) == 4 + KILLS // 2
    assert {row["state"] for row in whole} <= {
        "baseline",
        "promote",
        "keep",
        "inconclusive",
        "discard",
    }
    assert not list((tmp_path / "killed").rglob("*~"))


def _lines(path):
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


@pytest.mark.skipif(not hasattr(os, "setsid"), reason="no process groups")
def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(tmp_path, search, command):
    search(tmp_path, 50)
    process = subprocess.Popen(
        command(tmp_path, 2),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while _lines(tmp_path / "journal" / "tiny.jsonl") < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it, too
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 130, (said, errors)
    assert errors == "phi-train: interrupted\n"
    assert "everything is saved, the same command goes on" in said
    assert (tmp_path / "work" / "tiny" / "report.html").exists()
