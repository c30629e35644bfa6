"""Where a run took place, and a resume that finds itself elsewhere."""

from __future__ import annotations

import json
import platform

import numpy as np
import pytest

import phi_train
from phi_model import load_checkpoint
from phi_train import train
from phi_train.environment import arithmetic, changes, environment


def test_facts():
    facts = environment()
    assert facts["numpy"] == np.__version__
    assert facts["packages"]["phi-train"] == phi_train.__version__
    assert facts["cpu"]
    assert facts["blas"]
    assert facts["blas_threads"] >= 1
    assert {"python", "platform", "cores", "command"} <= set(facts)
    assert facts | arithmetic() == facts
    assert json.loads(json.dumps(facts)) == facts


def test_changes():
    before = {"cpu": "A", "blas": "openblas Zen", "numpy": "2.0"}
    assert changes(before, before) == []
    assert changes({}, before) == []
    now = {"cpu": "A", "blas": "openblas Haswell", "numpy": "2.1"}
    assert changes(before, now) == [
        "blas: openblas Haswell (the run began on openblas Zen)",
        "numpy: 2.1 (the run began on 2.0)",
    ]


def test_a_run_keeps_them(settings, stop_at, listener, monkeypatch):
    result = train(settings(), progress=stop_at(5))
    kept = json.loads(result.folder.environment.read_text())
    assert kept == environment()
    assert load_checkpoint(result.folder.last).metadata["machine"] == arithmetic()
    monkeypatch.setattr("phi_train.loop.arithmetic", lambda: arithmetic() | {"cpu": "Another"})
    train(settings(), resume=True, progress=listener)
    told = [line for line in listener.lines if "warning" in line]
    assert told == [
        f"warning: another machine: cpu: Another (the run began on {arithmetic()['cpu']}); "
        "the last bits may differ"
    ]
    assert json.loads(result.folder.environment.read_text()) == kept


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ("processor : 0\nmodel name\t: Fast : faster\nHardware : x\n", "Fast : faster"),
        ("processor : 0\nHardware\t: Some phone\n", "Some phone"),
        ("", platform.processor() or platform.machine()),
    ],
)
def test_the_processors_name(monkeypatch, tmp_path, facts, name):
    path = tmp_path / "cpuinfo"
    path.write_text(facts)
    monkeypatch.setattr("phi_train.environment.Path", lambda _: path)
    assert arithmetic()["cpu"] == name
