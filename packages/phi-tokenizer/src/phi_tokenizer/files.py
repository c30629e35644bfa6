"""Writing files so that a crash or a full disk never leaves half of one.

    with atomic_write("tokenizer.json") as file:
        file.write(b"...")

The bytes go to a temporary name in the same folder, are flushed and synced, and take the real
name only when all of them are on the disk. If anything fails before that, the temporary file
is removed and what was there before stays as it was.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["atomic_write", "atomic_write_bytes"]


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open `path` for writing bytes; the file appears whole, or not at all.

    A symbolic link is followed, and the permissions of a file that is replaced are kept.
    Something that is not a regular file (`/dev/stdout`, a pipe) is written directly.

    Raises:
        OSError: the folder is missing or not writable, `path` is a folder, the disk is full.
            `error.filename` names the target, never the temporary file.
    """
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode
    except OSError:
        mode = None
    try:
        if mode is not None and not stat.S_ISREG(mode):
            with open(target, "wb") as file:  # a folder raises IsADirectoryError here
                yield file
            return
        temporary = target.with_name(f".{target.name[:100]}.{os.urandom(6).hex()}.tmp")
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if mode is not None:
                os.chmod(temporary, stat.S_IMODE(mode))
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(target.parent)
    except OSError as error:
        # An error of the body that names another file keeps its name.
        if error.filename is None or str(error.filename).endswith(".tmp"):
            error.filename = os.fspath(path)
            error.filename2 = None
        raise


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` with `atomic_write`."""
    with atomic_write(path) as file:
        file.write(data)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; not every system can open a folder, so a best effort."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
