"""A folder for one process at a time.

with only_one(Path("tokens")):
    ...
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phi_train.errors import DataError

__all__ = ["only_one"]


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Holds a folder against other processes, where the system can; DataError if one has it.

    The system lets go of it when the process ends, however it ends; no file is left.
    """
    try:
        import fcntl  # noqa: PLC0415 (not on Windows)
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise DataError(f"another process is at work in {folder}: wait for it") from error
    try:
        yield
    finally:
        os.close(handle)
