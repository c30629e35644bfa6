"""One run in a folder at a time: a lock that the system itself releases when its owner dies.

The file run.lock holds the owner's process id, for whoever is refused, and is there only while
the run lasts or after a crash. Where the file system knows no locks, none is taken.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import weakref
from pathlib import Path
from types import TracebackType

from phi_train.errors import RunError

__all__ = ["RunLock"]

HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)
FAR = 1 << 20  # where Windows locks a byte: it lets nobody read those that are locked


class RunLock:
    """Holds `path` from acquire() to release(), or until the process ends in any way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Takes the lock; raises RunError, naming the owner, when another run has it.

        Does nothing when this object has it already.
        """
        while self._handle is None:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                _lock(handle)
            except OSError as error:
                owner = self._owner()
                os.close(handle)
                if error.errno in HELD:
                    raise RunError(
                        f"{self.path.parent} is in use by {owner}: wait for it or stop it, or "
                        "choose another folder with --out"
                    ) from None
                return  # no locks on this file system
            if self._is_current(handle):
                self._handle = handle
                _held.add(self)
                with contextlib.suppress(OSError):  # a full disk holds no number; it locks
                    os.ftruncate(handle, 0)
                    os.write(handle, f"{os.getpid()}\n".encode())
            else:  # its owner took the file away between our open and our lock
                os.close(handle)

    def release(self) -> None:
        """Gives the lock back and removes the file; does nothing without the lock."""
        if self._handle is None:
            return
        with contextlib.suppress(OSError):
            self.path.unlink()  # first: whoever opens it later makes a new one
        self._close()

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _owner(self) -> str:
        try:
            pid = self.path.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            pid = ""
        return f"the run of process {pid}" if pid else "another run"

    def _is_current(self, handle: int) -> bool:
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(handle), there)


if sys.platform == "win32":

    def _lock(handle: int) -> None:
        import msvcrt  # noqa: PLC0415 (Windows alone has it)

        os.lseek(handle, FAR, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(handle, 0, os.SEEK_SET)

else:

    def _lock(handle: int) -> None:
        import fcntl  # noqa: PLC0415 (Unix alone has it)

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """A forked worker would keep the lock for as long as it outlives a killed run."""
    for lock in list(_held):
        lock._close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
