"""The list of runs and the machine's state, told as far as it is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from phi_train import RunError, cli, status, train
from phi_train.guard import Reading

CLOCK = 1_700_000_000


@pytest.fixture
def folder(settings, tmp_path):
    """Makes a run's folder with `steps` of its 24 done, changed `ago` seconds before CLOCK."""

    def make(name, steps, *, ago, final=None):
        path = tmp_path / "runs" / name
        path.mkdir(parents=True)
        (path / "config.toml").write_text(settings(name).to_toml())
        lines = [
            {"step": i, "loss": 4.0, "tokens": 64 * i, "seconds": 0.1} for i in range(1, steps + 1)
        ]
        lines += [{"step": s, "valid_loss": 3.5 - s / 8} for s in (2, 4) if s <= steps]
        lines += [{"step": steps, "final_loss": final}] if final else []
        metrics = path / "metrics.jsonl"
        metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
        os.utime(metrics, (CLOCK - ago, CLOCK - ago))
        return path

    return make


@pytest.fixture
def call(monkeypatch, capsys):
    def invoke(*args, cwd=None):
        if cwd is not None:
            monkeypatch.chdir(cwd)
        monkeypatch.setattr("warnings.showwarning", lambda *_: None)  # main changes it
        monkeypatch.setattr("time.time", lambda: float(CLOCK))
        monkeypatch.setattr(sys, "argv", ["phi-train", "status", *map(str, args)])
        with pytest.raises(SystemExit) as leave:
            cli.main()
        said = capsys.readouterr()
        return subprocess.CompletedProcess(args, leave.value.code, said.out, said.err)

    return invoke


def test_runs_are_listed_the_latest_first(call, folder, tmp_path):
    folder("old", 24, ago=3 * 86_400, final=2.25)
    folder("sweep/inner", 4, ago=7200)
    running = folder("now", 1, ago=5)
    (running / "run.lock").write_text(f"{os.getpid()}\n")
    (tmp_path / "runs/no-run").mkdir()
    done = call(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[:4]]
    assert rows[0] == ["run", "preset", "state", "step", "loss", "best", "final", "changed"]
    assert rows[1] == ["runs/now", "gpt-1k", "running", "1/24", "4.0000", "5", "s", "ago"]
    assert rows[2][:6] == ["runs/sweep/inner", "gpt-1k", "stopped", "4/24", "4.0000", "3.0000"]
    assert rows[3][:7] == ["runs/old", "gpt-1k", "finished", "24/24", "4.0000", "3.0000", "2.2500"]
    assert rows[2][-3:] == ["2", "h", "ago"]
    assert rows[3][-3:] == ["3", "d", "ago"]


def test_a_real_run_as_json(call, settings, tmp_path):
    result = train(settings())
    done = call(tmp_path, "--json")
    (run,) = json.loads(done.stdout)["runs"]
    assert (run["run"], run["state"], run["step"]) == (str(tmp_path / "run"), "finished", 24)
    assert run["final_loss"] == result.evaluation.loss
    machine = json.loads(done.stdout)["machine"]
    assert machine["cores"] >= 1
    assert machine["disk_free"] > 0
    assert call(tmp_path / "run", "--json").stdout.count('"state": "finished"') == 1  # itself


def test_of_a_long_run_the_end_is_read(call, settings, tmp_path, monkeypatch):
    """Its figures are those of all of it, but for what only all of it tells."""
    result = train(settings())
    metrics = result.folder.metrics
    (whole,) = json.loads(call(tmp_path, "--json").stdout)["runs"]
    lines = metrics.read_bytes().splitlines(keepends=True)
    size = sum(map(len, lines[-6:])) + 3  # and the end of a line before
    assert whole["best_valid_loss"] is not None
    monkeypatch.setattr(status, "END", size)
    (end,) = status.find_runs(tmp_path)
    figures = status.run_status(end)
    assert len(end.columns["loss"]) == sum("loss" in json.loads(line) for line in lines[-6:])
    assert end.unreadable == 0
    same = ("run", "state", "step", "total_steps", "tokens", "final_loss", "valid_loss", "changed")
    assert {key: figures[key] for key in same} == {key: whole[key] for key in same}
    assert figures["best_valid_loss"] == pytest.approx(whole["best_valid_loss"])
    assert figures["seconds"] is None


def test_memory_and_cores_are_this_machines(tmp_path):
    now = status.machine(tmp_path)
    assert 0 < now.cores <= os.cpu_count()
    if sys.platform == "linux":
        assert now.memory == pytest.approx(
            os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), rel=0.05
        )
        assert 0 < now.memory_free < now.memory


def test_no_runs_yet(call, tmp_path):
    done = call(cwd=tmp_path)
    assert done.returncode == 0
    assert "no runs in runs yet" in done.stdout
    assert "cores" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_no_such_folder(call, tmp_path):
    with pytest.raises(RunError):
        status.find_runs(tmp_path / "none")
    done = call(tmp_path / "none")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "none is no folder" in done.stderr


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        (None, ["not read", "phi-train[guard]", "termux-api"]),
        (Reading(), ["battery      none, or not told", "temperature  not told"]),
        (
            Reading(battery=55.4, charging=False, heat=61.0, battery_heat=33.0),
            ["battery      55 %, not charging, 33 C", "temperature  61 C"],
        ),
        (Reading(battery=99.0, charging=True), ["99 %, charging\n"]),
    ],
)
def test_battery_and_temperature(call, monkeypatch, tmp_path, reading, words):
    def no_reader():
        if reading is None:
            raise status.ConfigError("nothing to read with")
        return lambda: reading

    monkeypatch.setattr(status, "reader", no_reader)
    said = call(cwd=tmp_path).stdout
    assert not [word for word in words if word not in said], said
