"""The folder of an experiment that improves a model: settings, examples, measurements, models.

config.json  tokenizer.json  examples.jsonl  results.json  NAME.phi  report.html
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from phi_model.files import atomic_write
from phi_train.errors import RunError
from phi_train.improve.example_log import ExampleLog
from phi_train.lock import RunLock

__all__ = ["WorkFolder"]


class WorkFolder:
    """Opens the folder for these settings, or goes on in it; others wait until close().

    Raises RunError when it holds work with other settings, or another process is at work in it.
    """

    def __init__(self, path: str | os.PathLike[str], settings: dict[str, Any]) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = RunLock(self.path / "run.lock")
        self._lock.acquire()
        try:
            self._check(json.loads(json.dumps(settings)))  # lists, as they come back
        except BaseException:
            self.close()
            raise
        for unfinished in self.path.glob(".*~"):
            unfinished.unlink()
        self.examples = ExampleLog(self.path / "examples.jsonl")

    def _check(self, settings: dict[str, Any]) -> None:
        file = self.path / "config.json"
        if not file.exists():
            self.write("config.json", settings)
            return
        try:
            before = json.loads(file.read_bytes())
        except ValueError:
            before = None
        if not isinstance(before, dict):
            raise RunError(f"{file} is damaged: choose another folder with --out")
        odd = sorted(n for n in before.keys() | settings.keys() if before.get(n) != settings.get(n))
        if odd:
            raise RunError(
                f"{self.path} was begun with {odd[0]} {before.get(odd[0])}, not "
                f"{settings.get(odd[0])}: give the same settings, or another folder with --out"
            )

    def close(self) -> None:
        """Lets others work in the folder."""
        self._lock.release()

    def model(self, name: str) -> Path:
        """The path of a model."""
        return self.path / f"{name}.phi"

    def write(self, name: str, values: Any) -> None:
        """A file of JSON, whole or not at all."""
        with atomic_write(self.path / name) as file:
            file.write((json.dumps(values, indent=1) + "\n").encode())
