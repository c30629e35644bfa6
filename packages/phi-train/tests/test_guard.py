"""Pauses, with readings by hand: when, for how long, and that a paused run loses nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import types

import pytest

from phi_model import load_checkpoint
from phi_train import ConfigError, train
from phi_train import guard as guard_module
from phi_train.guard import Guard, Limits, Reading, machine_guard, reader

FINE = Reading(battery=80.0, charging=False, heat=50.0, battery_heat=30.0, memory=40.0)


class Clock:
    """Moves only when somebody sleeps."""

    def __init__(self):
        self.now = 0.0
        self.slept = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.slept += seconds


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        (FINE, ""),
        (Reading(), ""),
        (Reading(battery=19.0, charging=False), "battery at 19 % (limit 20 %)"),
        (Reading(battery=19.0, charging=None), "battery at 19 %"),
        (Reading(battery=19.0, charging=True), ""),
        (Reading(battery=5.0, charging=True, heat=99.0), "processor at 99 C (limit 95 C)"),
        (Reading(battery_heat=44.0), "battery at 44 C (limit 43 C)"),
        (Reading(memory=2.5), "2.5 % of memory free (limit 3 %)"),
        (Reading(battery=20.0, heat=95.0, battery_heat=43.0, memory=3.0), ""),
    ],
)
def test_what_is_trouble(reading, words):
    said = Limits().trouble(reading)
    assert said.startswith(words)
    assert bool(said) == bool(words)


@pytest.mark.parametrize(
    ("reading", "goes_on"),
    [
        ({"battery": 24.0, "charging": False}, False),
        ({"battery": 25.0, "charging": False}, True),
        ({"battery": 21.0, "charging": True}, True),
        ({"heat": 91.0}, False),
        ({"heat": 90.0}, True),
        ({"memory": 4.0}, False),
        ({"memory": 5.0}, True),
    ],
)
def test_a_little_more_is_needed_to_go_on(reading, goes_on):
    assert (Limits().trouble(Reading(**reading), paused=True) == "") == goes_on


def test_it_looks_now_and_then_and_waits_until_all_is_well():
    clock = Clock()
    readings = [FINE, Reading(memory=1.0), Reading(memory=1.0), Reading(memory=4.0), FINE]
    asked = []

    def read():
        asked.append(clock.now)
        return readings[len(asked) - 1]

    guard = Guard(Limits(), read, seconds_between=10.0, clock=clock, sleep=clock.sleep)
    assert guard.trouble() == ""
    assert guard.trouble() == ""  # too early for another look
    clock.now = 10.0
    assert guard.trouble() == "1.0 % of memory free (limit 3 %)"
    guard.wait()
    assert asked == [0.0, 10.0, 10.0, 20.0, 30.0]
    assert clock.slept == 20.0


def test_ctrl_c_ends_a_pause():
    clock = Clock()
    guard = Guard(Limits(), lambda: Reading(heat=99.0), clock=clock, sleep=clock.sleep)
    guard.wait(stopped=lambda: clock.now >= 3.0)
    assert clock.now == 3.0


def test_the_limits_of_a_config_are_the_guards(settings, monkeypatch):
    """Each by itself: one reading beyond the config's limit, and within the usual one."""
    cases = (
        ({"guard_battery": 60.0}, {"battery": 50.0}),
        ({"guard_heat": 60.0}, {"heat": 80.0}),
        ({"guard_battery_heat": 35.0}, {"battery_heat": 40.0}),
        ({"guard_memory": 30.0}, {"memory": 20.0}),
    )
    for limit, reading in cases:
        monkeypatch.setattr(guard_module, "reader", lambda r=reading: lambda: Reading(**r))
        for config, is_trouble in ((settings(**limit), True), (settings(), False), (None, False)):
            guard = machine_guard(config)
            guard._next = 0.0  # look at once
            assert bool(guard.trouble()) is is_trouble, (limit, config)


def _guard(readings):
    clock = Clock()
    left = iter(readings)
    return Guard(
        Limits(), lambda: next(left, FINE), seconds_between=0.0, clock=clock, sleep=clock.sleep
    )


def test_a_paused_run_is_saved_and_goes_on_by_itself(settings, listener):
    whole = train(settings("whole"))
    hot = Reading(heat=99.0)
    seen = []

    def read():
        seen.append(None)
        if len(seen) == 6:  # paused since the fifth update
            seen.append(load_checkpoint(settings().out + "/last.phi").step)
        return hot if len(seen) in (5, 7) else FINE

    clock = Clock()
    guard = Guard(Limits(), read, seconds_between=0.0, clock=clock, sleep=clock.sleep)
    result = train(settings(), progress=listener, guard=guard)
    assert seen[6] == 5
    pauses = [line for line in listener.lines if "paused" in line or "going on" in line]
    assert pauses == [
        "step 5: paused, processor at 99 C (limit 95 C); goes on by itself",
        "step 5: going on",
    ]
    assert result.folder.last.read_bytes() == whole.folder.last.read_bytes()


def test_a_pause_is_no_training_time(settings):
    """With a budget in seconds: a clock that jumps while the guard waits must not end the run."""
    hot = [FINE, Reading(heat=99.0)]
    result = train(settings(seconds=0.5, checkpoint_every=0), guard=_guard(hot))
    assert result.finished
    assert 0.5 <= load_checkpoint(result.folder.last).metadata["elapsed"] < 5


def test_nothing_to_read_the_machine_with(monkeypatch, settings):
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'phi-train\[guard\]'"):
        train(settings(guard=True))


def _psutil(**changes):
    """A psutil of its own for each machine."""
    sensor = types.SimpleNamespace
    base = {
        "virtual_memory": lambda: sensor(available=25, total=100),
        "sensors_battery": lambda: sensor(percent=55, power_plugged=False),
        "sensors_temperatures": lambda: {
            "cpu": [sensor(current=61.0), sensor(current=70.5)],
            "disk": [sensor(current=None)],
        },
    }
    return types.SimpleNamespace(**{k: v for k, v in (base | changes).items() if v is not None})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Reading(battery=55.0, charging=False, heat=70.5, memory=25.0)),
        ({"sensors_battery": lambda: None}, Reading(heat=70.5, memory=25.0)),
        ({"sensors_battery": None, "sensors_temperatures": None}, Reading(memory=25.0)),
        ({"sensors_temperatures": dict, "sensors_battery": None}, Reading(memory=25.0)),
    ],
)
def test_reading_with_psutil(monkeypatch, changes, expected):
    monkeypatch.setitem(sys.modules, "psutil", _psutil(**changes))
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert reader()() == expected


PLUGGED = {"percentage": 41, "plugged": "PLUGGED_AC", "temperature": 33.5, "status": "CHARGING"}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (json.dumps(PLUGGED), Reading(battery=41.0, charging=True, battery_heat=33.5)),
        (
            json.dumps(PLUGGED | {"plugged": "UNPLUGGED"}),
            Reading(battery=41.0, charging=False, battery_heat=33.5),
        ),
        ("", Reading()),
        ('{"percentage": null}', Reading()),
        (None, Reading()),
    ],
)
def test_reading_on_termux(monkeypatch, tmp_path, said, expected):
    monkeypatch.setitem(sys.modules, "psutil", None)
    program = tmp_path / "termux-battery-status"
    program.write_text("#!/bin/sh\n" + ("exit 1\n" if said is None else f"echo '{said}'\n"))
    program.chmod(0o755)
    monkeypatch.setattr(guard_module.shutil, "which", lambda _: str(program))
    assert reader()() == expected


def test_termux_does_not_answer(monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.setattr(guard_module.shutil, "which", lambda name: name)

    def hangs(command, **_options):
        raise subprocess.TimeoutExpired(command, 10)

    monkeypatch.setattr(guard_module.subprocess, "run", hangs)
    assert reader()() == Reading()
