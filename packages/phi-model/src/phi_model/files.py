"""Files that appear whole or not at all, and small ones that are one msgpack map."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgpack

from phi_model.errors import CheckpointError

__all__ = ["atomic_write", "read_map"]


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write bytes to; it takes the name `path` only once it is whole and on disk.

    Raises OSError, naming `path`, when that fails (full disk, no such folder); what stood at
    `path` before is then untouched and the unfinished file is gone.
    """
    import tempfile  # noqa: PLC0415  (slow, and only for writing)

    target = Path(os.path.realpath(path))  # through a link: what it points to is replaced
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name}.", suffix="~"
        )
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(target))
        os.replace(temporary, target)
    except BaseException as error:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError) and str(error.filename or "~").endswith("~"):
            error.filename, error.filename2 = str(path), None
        raise
    _sync_folder(target.parent)


def _mode(target: Path) -> int:
    """The permissions of the file to be replaced, else those a new file would get."""
    with suppress(OSError):
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    """Makes the new name itself durable, where folders can be opened."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_map(
    path: str | os.PathLike[str], *, what: str, format: str, version: int
) -> dict[str, Any]:
    """The map {format, version, ...} that a file holds. Nothing in it is ever executed.

    what: the file's content in an error, "a saved state of a gpt". Raises OSError, or
    CheckpointError for a file that is no such map, or of another format or version.
    """
    source = Path(path)
    try:
        content = msgpack.unpackb(source.read_bytes())
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise CheckpointError(f"{source} is not {what}, or is damaged ({error})") from error
    if not isinstance(content, dict) or content.get("format") != format:
        raise CheckpointError(f"{source} is not {what}, or is damaged")
    if content.get("version") != version:
        raise CheckpointError(
            f"{source} is {what} of version {content.get('version')!r}; only version {version} "
            "can be read: make it again with this release"
        )
    return content
