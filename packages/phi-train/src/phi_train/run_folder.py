"""A run's folder: what is where, and a metrics log that is never left with half a line.

config.toml  tokenizer.json  metrics.jsonl  environment.json
last.phi  best.phi  checkpoints/step-001000.phi  run.lock (while it runs)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from phi_model.files import atomic_write
from phi_train.errors import RunError
from phi_train.json_lines import append, object_of
from phi_train.shards import is_prepared

__all__ = ["MetricsLog", "RunFolder", "naming"]

FINAL = ("step", "final_loss", "bits_per_byte", "valid_tokens", "text_bytes")  # of a finished run


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError that passes through names `path`, if it names nothing."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


class RunFolder:
    """Paths inside one run's folder."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.toml"
        self.tokenizer = self.path / "tokenizer.json"
        self.metrics = self.path / "metrics.jsonl"
        self.last = self.path / "last.phi"
        self.best = self.path / "best.phi"
        self.environment = self.path / "environment.json"
        self.lock = self.path / "run.lock"

    @classmethod
    def unused(cls, name: str, *, parent: str | os.PathLike[str] = "runs") -> RunFolder:
        """runs/NAME, or runs/NAME-2, ... : the first that does not exist."""
        candidate, number = Path(parent) / name, 1
        while candidate.exists():
            number += 1
            candidate = Path(parent) / f"{name}-{number}"
        return cls(candidate)

    @property
    def holds_a_run(self) -> bool:
        """Whether a run was started here."""
        return self.config.exists() or self.last.exists()

    def final_line(self) -> dict[str, Any] | None:
        """The line of metrics.jsonl that a finished run ends with; None where there is none."""
        try:
            last = object_of(self.metrics.read_bytes().splitlines()[-1])
        except (OSError, IndexError):
            return None
        if last is None or not all(type(last.get(name)) in (int, float) for name in FINAL):
            return None
        return last if isinstance(last.get("baselines", {}), dict) else None

    def checkpoint(self, step: int) -> Path:
        """The path of the checkpoint after `step` updates."""
        return self.path / "checkpoints" / f"step-{step:06d}.phi"

    def must_be_unused(self) -> None:
        """Raises RunError when the folder already holds a run, or prepared data."""
        if is_prepared(self.path):
            raise RunError(f"{self.path} holds prepared data: choose another folder with --out")
        if self.holds_a_run:
            raise RunError(
                f"{self.path} already holds a run: continue it with --resume, or choose another "
                "folder with --out"
            )

    def create(self) -> None:
        """Makes the folder where there is none."""
        (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)

    def write(self, path: Path, content: bytes) -> None:
        """Writes one of the folder's files, whole or not at all."""
        with atomic_write(path) as file:
            file.write(content)

    def publish_last(self, checkpoint: Path) -> None:
        """Gives a numbered checkpoint the name last.phi as well: a second name, or a copy."""
        other_name = self.last.with_name(f".{self.last.name}~")
        try:
            other_name.unlink(missing_ok=True)
            os.link(checkpoint, other_name)
            os.replace(other_name, self.last)
        except OSError:  # a file system without hard links
            with suppress(OSError):
                other_name.unlink(missing_ok=True)
            self.write(self.last, checkpoint.read_bytes())

    def numbered(self) -> list[Path]:
        """The numbered checkpoints, oldest first."""
        found = (self.path / "checkpoints").glob("step-*.phi")
        return sorted(found, key=lambda p: (len(p.name), p.name))

    def drop_checkpoints(self, *, keep: int, step: int) -> None:
        """Removes numbered checkpoints up to `step`, all but the last `keep`.

        Later ones are damaged: else the run would have gone on from there. They take nobody's
        place, and are written anew in time.
        """
        newest = self.checkpoint(step).name
        own = [p for p in self.numbered() if (len(p.name), p.name) <= (len(newest), newest)]
        for old in own[:-keep]:
            old.unlink()

    def sweep(self) -> None:
        """Removes the unfinished files that a killed run has left."""
        for place in (self.path, self.path / "checkpoints"):
            for unfinished in place.glob(".*~"):
                unfinished.unlink()


class MetricsLog:
    """metrics.jsonl: one JSON object a line, appended at once.

    When a line cannot be written whole (full disk) the file is cut back to the line before.
    """

    def __init__(self, path: Path, *, keep_steps: int = 0, evaluated_at: int | None = None) -> None:
        """Continues after step `keep_steps`: later lines of an interrupted run are cut off, and
        so are an evaluation at that step, where the last one known is from `evaluated_at` before
        it, the end of a run that diverged and the final line of a finished run that goes on.
        """
        self._path = path
        self._file = path.open("ab", buffering=0)
        with naming(path):
            size = self._size_up_to(path, keep_steps, evaluated_at)
            self._file.truncate(size)  # in place: needs no room

    @staticmethod
    def _size_up_to(path: Path, step: int, evaluated_at: int | None) -> int:
        """Bytes of the whole lines up to `step`."""
        size, is_known = 0, evaluated_at is None or evaluated_at >= step
        for line in path.read_bytes().splitlines(keepends=True):
            entry = object_of(line) if line.endswith(b"\n") else None
            at = None if entry is None else entry.get("step", 0)
            if entry is None or type(at) is not int or at > step:
                break
            if "final_loss" in entry or "diverged" in entry:
                break
            if "valid_loss" in entry and at == step and not is_known:
                break
            size += len(line)
        return size

    def write(self, **values: Any) -> None:
        """Appends one line; raises OSError, the file as it was, when it does not fit."""
        content = (json.dumps(values) + "\n").encode()
        with naming(self._path):
            append(self._file, content, end=self._file.seek(0, os.SEEK_END), sync=False)

    def sync(self) -> None:
        """Returns when every line is on the disk: a checkpoint must not outlive its log."""
        with naming(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
