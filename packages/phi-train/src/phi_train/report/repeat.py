"""The command that makes the same run again."""

from __future__ import annotations

import shlex

from phi_train.report.record import RunRecord

__all__ = ["repeat_command"]


def repeat_command(run: RunRecord) -> str:
    """A line for the shell: every setting from the run's own config.toml, into a new folder.

    The number of workers is part of what decides the last bit, so `auto` is replaced by what it
    came to, where that is known.
    """
    words = ["phi-train", "run", "--config", str(run.path / "config.toml")]
    if run.workers is not None and run.config.get("workers") != str(run.workers):
        words += ["--workers", str(run.workers)]
    beside = run.path / ".." if run.path.name in ("", "..") else run.path.parent
    return shlex.join([*words, "--out", str(beside / f"{run.name}-again")])
