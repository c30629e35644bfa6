"""Where a run takes place: processor, BLAS, versions, command; and what a resume finds changed.

>>> changes({"cpu": "A", "numpy": "2.1.0"}, {"cpu": "B", "numpy": "2.1.0"})
['cpu: B (the run began on A)']
"""

from __future__ import annotations

import importlib
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

__all__ = ["arithmetic", "changes", "environment"]

PACKAGES = ("phi_tokenizer", "phi_model", "phi_optim", "phi_infer", "phi_train")


def arithmetic() -> dict[str, str]:
    """What decides the last bit of a sum: the processor, BLAS and its kernel, numpy."""
    return {"cpu": _cpu(), "blas": _blas(), "numpy": np.__version__}


def environment() -> dict[str, Any]:
    """Everything worth knowing about where a run took place, as plain values."""
    return {
        **arithmetic(),
        "blas_threads": max((info["num_threads"] for info in _blas_libraries()), default=1),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name.replace("_", "-"): _version(name) for name in PACKAGES},
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """A line for each fact that both know and that differs."""
    return [
        f"{name}: {now[name]} (the run began on {value})"
        for name, value in before.items()
        if name in now and now[name] != value
    ]


def _blas_libraries() -> list[dict[str, Any]]:
    return [info for info in threadpool_info() if info["user_api"] == "blas"]


def _blas() -> str:
    found = {
        f"{info['internal_api']} {info['version']} {info.get('architecture', '')}".strip()
        for info in _blas_libraries()
    }
    return ", ".join(sorted(found)) or "unknown"


def _version(package: str) -> str:
    return str(importlib.import_module(package).__version__)


def _cpu() -> str:
    """The processor's name as Linux gives it, else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for wanted in ("model name", "Hardware", "Model"):
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == wanted and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown"
