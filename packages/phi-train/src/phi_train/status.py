"""The runs in a folder, and the state of the machine that they run on.

Of a long run only the end of its metrics is read: status is quick, and asked for often. What the
end and the machine do not tell is None.
"""

from __future__ import annotations

import math
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi_model import PhiModelError, load_checkpoint
from phi_train.errors import ConfigError, RunError
from phi_train.guard import Reading, reader
from phi_train.report import RunRecord, read_run, summary
from phi_train.run_folder import RunFolder

__all__ = ["Machine", "find_runs", "machine", "run_status"]

DEPTH = 3  # folders below the one that is named
END = 1 << 18  # bytes of metrics: some thousand steps


@dataclass(frozen=True)
class Machine:
    """Sizes in bytes, shares in percent, temperatures in degrees Celsius."""

    cores: int
    load: float | None  # processes that wanted to run, the mean of the last minute
    memory: int | None
    memory_free: int | None  # what a new program could have
    disk_free: int
    battery: float | None
    charging: bool | None
    battery_heat: float | None
    heat: float | None
    has_sensors: bool  # whether battery and temperature could be asked for


def find_runs(folder: Path) -> list[RunRecord]:
    """Every run in `folder` or below, the one that changed last first.

    Raises RunError when there is no such folder.
    """
    if not folder.is_dir():
        raise RunError(f"{folder} is no folder: name one that holds runs, such as runs")
    found = []
    for path in _folders(folder, DEPTH):
        files = RunFolder(path)
        if files.metrics.exists() or files.config.exists():
            with suppress(RunError, OSError):  # gone since we looked, or not ours to read
                found.append(read_run(path, last_bytes=END))
    return sorted(found, key=lambda run: -(run.changed or 0.0))


def _folders(folder: Path, depth: int) -> list[Path]:
    """`folder` and those below it, not those that nobody may look into."""
    below: list[Path] = []
    if depth:
        with suppress(PermissionError):
            inside = sorted(p for p in folder.iterdir() if p.is_dir() and not p.is_symlink())
            below = [deeper for path in inside for deeper in _folders(path, depth - 1)]
    return [folder, *below]


def run_status(run: RunRecord) -> dict[str, Any]:
    """The run's figures as in its report, and when it last changed.

    Where only the end was read: rate and shares of time are those of the last steps, the best
    held-out loss is that of best.phi, and the seconds are not known.
    """
    figures = {**summary(run), "changed": run.changed}
    files = RunFolder(run.path)
    with suppress(OSError):
        if files.metrics.stat().st_size > END:
            figures |= {"seconds": None, "best_valid_loss": _best_loss(files, run)}
    return figures


def _best_loss(files: RunFolder, run: RunRecord) -> float | None:
    """From the checkpoint of the best weights, and what was measured since."""
    known = run.valid.values.tolist()
    with suppress(PhiModelError, OSError, KeyError, TypeError, ValueError):
        known.append(float(load_checkpoint(files.best, verify=False).metadata["best_loss"]))
    return min((loss for loss in known if math.isfinite(loss)), default=None)


def machine(folder: Path) -> Machine:
    """The machine now; the disk is that of `folder`, or of the nearest folder above that exists."""
    sensors = _sensors()
    now = sensors or Reading()
    memory, free = _memory()
    if free is None and memory is not None and now.memory is not None:
        free = round(memory * now.memory / 100)
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return Machine(
        cores=_cores(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        memory=memory,
        memory_free=free,
        disk_free=shutil.disk_usage(there).free,
        battery=now.battery,
        charging=now.charging,
        battery_heat=now.battery_heat,
        heat=now.heat,
        has_sensors=sensors is not None,
    )


def _sensors() -> Reading | None:
    """None where there is nothing to read them with."""
    try:
        return reader()()
    except ConfigError:
        return None


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> tuple[int | None, int | None]:
    """(all of it, what is free to use), from Linux; None where it is not told."""
    found = {}
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            found[name] = int(value.split()[0]) * 1024
    total = found.get("MemTotal")
    if total is None and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return total, found.get("MemAvailable")
