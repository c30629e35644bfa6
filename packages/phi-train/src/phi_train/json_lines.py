"""Files of JSON objects, one a line, as kill -9, a power cut or a full disk leave them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

__all__ = ["append", "object_of", "whole_objects"]


def append(file: FileIO, content: bytes, *, end: int, sync: bool = True) -> None:
    """Writes content from byte `end` on; whatever was there, such as a torn line, is cut off.

    file: opened with "ab", unbuffered. sync: returns when it is on the disk. Raises OSError, the
    file as it was up to `end`, when it does not fit.
    """
    if file.seek(0, os.SEEK_END) != end:
        file.truncate(end)
    rest = content
    try:
        while rest:  # a full disk may take a part, and tell at the next call
            rest = rest[file.write(rest) :]
        if sync:
            os.fsync(file.fileno())
    except OSError:
        file.truncate(end)
        raise


def object_of(line: bytes | str) -> dict[str, Any] | None:
    """The JSON object of a line; None where it is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def whole_objects(path: Path) -> Iterator[dict[str, Any]]:
    """Of the lines with an end those that are objects; none where there is no file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    for line in content.split(b"\n")[:-1]:
        if (value := object_of(line)) is not None:
            yield value
