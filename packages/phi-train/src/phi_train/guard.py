"""Pauses a run while the machine is short of battery or memory, or too hot.

Readings come from psutil (an extra), and on Termux from `termux-battery-status`. What a machine
does not tell is not watched.
"""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from phi_train.errors import ConfigError

if TYPE_CHECKING:
    from phi_train.config import TrainConfig

__all__ = ["Guard", "Limits", "Reading", "machine_guard", "reader"]

SECONDS_BETWEEN = 15.0  # readings: Termux takes about a second for one
EASE = {"battery": 5.0, "heat": 5.0, "battery_heat": 2.0, "memory": 2.0}  # to go on again


@dataclass(frozen=True)
class Reading:
    """The machine's state; None where it is not known."""

    battery: float | None = None  # percent left
    charging: bool | None = None
    heat: float | None = None  # degrees Celsius, the hottest part of the processor
    battery_heat: float | None = None  # degrees Celsius
    memory: float | None = None  # percent that is free to use


@dataclass(frozen=True)
class Limits:
    """Where a run pauses; it goes on when the reading is a little better than that."""

    battery: float = 20.0  # percent, while not charging
    heat: float = 95.0  # degrees Celsius
    battery_heat: float = 43.0  # degrees Celsius
    memory: float = 3.0  # percent free

    def trouble(self, now: Reading, *, paused: bool = False) -> str:
        """What is wrong, in words; empty when nothing is. A paused run needs more to go on."""
        ease = {name: (margin if paused else 0.0) for name, margin in EASE.items()}
        low_battery = now.battery is not None and now.battery < self.battery + ease["battery"]
        if low_battery and not now.charging:
            return f"battery at {now.battery:.0f} % (limit {self.battery:g} %)"
        hot_battery = self.battery_heat - ease["battery_heat"]
        if now.battery_heat is not None and now.battery_heat > hot_battery:
            return f"battery at {now.battery_heat:.0f} C (limit {self.battery_heat:g} C)"
        if now.heat is not None and now.heat > self.heat - ease["heat"]:
            return f"processor at {now.heat:.0f} C (limit {self.heat:g} C)"
        if now.memory is not None and now.memory < self.memory + ease["memory"]:
            return f"{now.memory:.1f} % of memory free (limit {self.memory:g} %)"
        return ""


class Guard:
    """Asks for a reading now and then, and keeps a run waiting while there is trouble."""

    def __init__(
        self,
        limits: Limits,
        read: Callable[[], Reading],
        *,
        seconds_between: float = SECONDS_BETWEEN,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._limits, self._read = limits, read
        self._between, self._clock, self._sleep = seconds_between, clock, sleep
        self._next = clock()

    def trouble(self) -> str:
        """What is wrong, if the last look is some seconds old and something is; else empty."""
        if self._clock() < self._next:
            return ""
        self._next = self._clock() + self._between
        return self._limits.trouble(self._read())

    def wait(self, *, stopped: Callable[[], bool] = lambda: False) -> None:
        """Returns when the trouble is over, or when stopped() says so (asked each second)."""
        while not stopped() and self._limits.trouble(self._read(), paused=True):
            until = self._clock() + self._between
            while self._clock() < until and not stopped():
                self._sleep(1.0)
        self._next = self._clock() + self._between


def machine_guard(config: TrainConfig | None = None) -> Guard:
    """Watches this machine, with the limits of a config, or the usual ones.

    Raises ConfigError when nothing can be read.
    """
    limits = Limits()
    if config is not None:
        limits = Limits(
            battery=config.guard_battery,
            heat=config.guard_heat,
            battery_heat=config.guard_battery_heat,
            memory=config.guard_memory,
        )
    return Guard(limits, reader())


def reader() -> Callable[[], Reading]:
    """How this machine is read. Raises ConfigError when nothing can be."""
    termux = shutil.which("termux-battery-status")
    try:
        psutil = importlib.import_module("psutil")
    except ImportError:
        psutil = None
    if psutil is None and termux is None:
        raise ConfigError(
            "--guard has nothing to read the machine with: pip install 'phi-train[guard]' "
            "(on Termux: pkg install termux-api)"
        )

    def read() -> Reading:
        found: dict[str, Any] = {}
        if psutil is not None:
            found |= _from_psutil(psutil)
        if termux is not None:
            found |= _from_termux(termux)
        return Reading(**found)

    return read


def _from_psutil(psutil: Any) -> dict[str, Any]:
    memory = psutil.virtual_memory()
    found: dict[str, Any] = {"memory": 100 * memory.available / memory.total}
    battery = getattr(psutil, "sensors_battery", lambda: None)()
    if battery is not None:
        found |= {"battery": float(battery.percent), "charging": battery.power_plugged}
    sensors: dict[str, Any] = getattr(psutil, "sensors_temperatures", dict)()
    degrees = [sensor.current for chip in sensors.values() for sensor in chip if sensor.current]
    if degrees:
        found["heat"] = float(max(degrees))
    return found


def _from_termux(program: str) -> dict[str, Any]:
    """Empty when Termux:API does not answer; a run must not end for that."""
    try:
        said = subprocess.run(
            [program], capture_output=True, timeout=10, check=True, encoding="utf-8"
        )
        status = json.loads(said.stdout)
        return {
            "battery": float(status["percentage"]),
            "charging": status["plugged"] != "UNPLUGGED",
            "battery_heat": float(status["temperature"]),
        }
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return {}
