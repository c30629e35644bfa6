"""Every generated example with its verdict: lines of JSON, in groups that are whole or absent.

A group is closed by a line of its own; what a kill leaves of an open one is cut off when the file
is next written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phi_train.json_lines import append, object_of
from phi_train.run_folder import naming

__all__ = ["Example", "ExampleLog"]

Example = dict[str, Any]


class ExampleLog:
    """Groups of examples by name."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._groups: dict[str, list[Example]] = {}
        self._end = position = 0  # bytes: of the last whole group, of what was read
        pending: list[Example] = []
        content = self.path.read_bytes() if self.path.exists() else b""
        for line in content.splitlines(keepends=True):
            entry = object_of(line) if line.endswith(b"\n") else None
            if entry is None:
                break
            position += len(line)
            if "closes" in entry:
                self._groups[entry["closes"]] = pending
                pending, self._end = [], position
            else:
                pending.append(entry)

    def get(self, group: str) -> list[Example] | None:
        """The examples of a group; None where it is not there."""
        return self._groups.get(group)

    def of(self, prefix: str) -> list[Example]:
        """The examples of all groups whose names begin with `prefix`, in order."""
        names = (name for name in self._groups if name.startswith(prefix))
        return [example for name in names for example in self._groups[name]]

    def add(self, group: str, examples: Sequence[Example]) -> None:
        """Appends a group; returns when it is on the disk. Raises OSError when it does not fit."""
        lines = [*examples, {"closes": group, "examples": len(examples)}]
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        with naming(self.path), self.path.open("ab", buffering=0) as file:
            append(file, content, end=self._end)
        self._end += len(content)
        self._groups[group] = list(examples)
