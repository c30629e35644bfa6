"""A few workers that do the same job at once, each on its own share. Knows jobs, not models.

A job is a callable job(member, *numbers), known by name before the team starts; member 0 is the
caller itself. Data travels through shared arrays (memory.shared_zeros), only names and numbers
through the team. All teams of one size do exactly the same arithmetic:

    InlineTeam    one after the other, in this thread
    ThreadTeam    Python threads; numpy lets go of the interpreter inside its loops
    ProcessTeam   forked processes on anonymous shared memory; no locks and no named memory,
                  which some systems (Android) do not have

While a job runs BLAS is held to one thread a member, and set back afterwards: BLAS's own threads
gain less than workers do, and wait for each other when another program takes a core.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NoReturn, Protocol

from phi_model.errors import ConfigError, WorkerError

if TYPE_CHECKING:
    from threadpoolctl import LibController

__all__ = ["RUNNERS", "InlineTeam", "ProcessTeam", "Team", "ThreadTeam", "can_fork", "make_team"]

Job = Callable[..., None]

RUNNERS = ("inline", "threads", "processes")


class Team(Protocol):
    """What all three have in common."""

    size: int

    def run(self, job: str, *numbers: float) -> None:
        """Every member does the job; returns when all are done. Raises WorkerError."""

    def close(self) -> None:
        """Sends the members home; the team cannot run again."""


def make_team(runner: str, size: int, jobs: Mapping[str, Job]) -> Team:
    """The team called `runner`; a process team becomes a thread team where it cannot fork."""
    if size < 1 or runner not in RUNNERS:
        raise ConfigError(f"no team of {size} {runner!r} workers; there are {', '.join(RUNNERS)}")
    if size == 1 or runner == "inline":
        return InlineTeam(size, jobs)
    if runner == "processes" and can_fork():
        return ProcessTeam(size, jobs)
    return ThreadTeam(size, jobs)


def can_fork() -> bool:
    """Whether forking is there and safe: no other Python thread may hold a lock meanwhile."""
    return hasattr(os, "fork") and sys.platform != "darwin" and threading.active_count() == 1


class InlineTeam:
    """All members in turn."""

    def __init__(self, size: int, jobs: Mapping[str, Job]) -> None:
        self.size, self._jobs = size, dict(jobs)

    def run(self, job: str, *numbers: float) -> None:
        """Every member's share, one after the other."""
        with _one_blas_thread():
            for member in range(self.size):
                self._jobs[job](member, *numbers)

    def close(self) -> None:
        """Nothing to do."""


class ThreadTeam:
    """Members 1, 2, ... are threads."""

    def __init__(self, size: int, jobs: Mapping[str, Job]) -> None:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  (a slow import)

        self.size, self._jobs = size, dict(jobs)
        self._threads = ThreadPoolExecutor(size - 1, thread_name_prefix="phi-worker")

    def run(self, job: str, *numbers: float) -> None:
        """All members at once; an exception in one of them is raised here."""
        with _one_blas_thread():
            others = [
                self._threads.submit(self._jobs[job], member, *numbers)
                for member in range(1, self.size)
            ]
            try:
                self._jobs[job](0, *numbers)
            finally:
                errors = [error for other in others if (error := other.exception())]
        if errors:
            raise errors[0]

    def close(self) -> None:
        """Waits for the threads to end."""
        self._threads.shutdown()


class ProcessTeam:
    """Members 1, 2, ... are children forked now: they see what exists now, and shared arrays.

    A child that dies ends the run with a WorkerError; when this process dies, its children see
    their pipe close and leave.
    """

    def __init__(self, size: int, jobs: Mapping[str, Job]) -> None:
        self.size, self._jobs, self._names = size, dict(jobs), list(jobs)
        self._members: list[_Child] = []
        self._owner = os.getpid()
        for member in range(1, size):
            self._members.append(self._fork(member))

    def _fork(self, member: int) -> _Child:
        command_out, command_in = os.pipe()
        reply_out, reply_in = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():  # 3.12 counts BLAS's own threads, which fork handles
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            for end in (command_in, reply_out, *(e for c in self._members for e in c.ends)):
                os.close(end)
            self._serve(member, command_out, reply_in)
        os.close(command_out)
        os.close(reply_in)
        return _Child(member, pid, command_in, reply_out)

    def _serve(self, member: int, commands: int, replies: int) -> NoReturn:
        """The child's whole life. Ctrl-C and the like are the parent's business."""
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # to a whole group: the parent decides
            with _one_blas_thread():
                while command := _read_exactly(commands, HEADER.size):
                    job, count = HEADER.unpack(command)
                    if job == GOODBYE:
                        break
                    numbers = struct.unpack(f"{count}d", _read_exactly(commands, 8 * count))
                    os.write(replies, self._reply_to(job, member, numbers))
            code = 0
        except BrokenPipeError:
            code = 0
        finally:
            os._exit(code)

    def _reply_to(self, job: int, member: int, numbers: tuple[float, ...]) -> bytes:
        try:
            self._jobs[self._names[job]](member, *numbers)
        except Exception as error:
            text = f"{type(error).__name__}: {error}".encode()[:MAX_REPLY]
            return REPLY.pack(len(text)) + text
        return REPLY.pack(0)

    def run(self, job: str, *numbers: float) -> None:
        """All members at once. Raises WorkerError when a child fails or has died."""
        if not self._members or os.getpid() != self._owner:
            raise WorkerError("these workers have been closed; start them again")
        command = HEADER.pack(self._names.index(job), len(numbers))
        command += struct.pack(f"{len(numbers)}d", *numbers)
        with _one_blas_thread():
            try:
                for child in self._members:
                    child.send(command)
                self._jobs[job](0, *numbers)
            except BaseException:
                self.close()  # a child may be half-way: nothing can be trusted to be in step
                raise
            failures = [text for child in self._members if (text := child.wait())]
        if failures:
            self.close()
            raise WorkerError(failures[0])

    def close(self) -> None:
        """Closes the pipes and waits for the children."""
        if os.getpid() == self._owner:
            members, self._members = self._members, []
            for child in members:
                child.dismiss()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


HEADER = struct.Struct("=BB")  # job, how many numbers follow
GOODBYE = 255  # in the place of a job: the end of the pipe may be kept open by other children
REPLY = struct.Struct("=H")  # 0, or the length of the error that follows
AWAKE = 1e-4  # seconds
MAX_REPLY = 1000  # bytes: with its length less than a pipe writes at once


class _Child:
    """The parent's side of one forked member."""

    def __init__(self, member: int, pid: int, command_in: int, reply_out: int) -> None:
        self.member, self.pid, self.ends = member, pid, (command_in, reply_out)

    def send(self, command: bytes) -> None:
        try:
            os.write(self.ends[0], command)
        except BrokenPipeError:
            raise WorkerError(self._obituary()) from None

    def wait(self) -> str:
        """Empty when the child has done its share, else what went wrong."""
        head = _read_exactly(self.ends[1], REPLY.size)
        if not head:
            return self._obituary()
        length = REPLY.unpack(head)[0]
        return _read_exactly(self.ends[1], length).decode() if length else ""

    def _obituary(self) -> str:
        return (
            f"worker {self.member} (process {self.pid}) has died, perhaps killed for memory: "
            "the step was not made; use fewer workers or a smaller batch"
        )

    def dismiss(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self.ends[0], HEADER.pack(GOODBYE, 0))
        for end in self.ends:
            os.close(end)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _read_exactly(end: int, size: int) -> bytes:
    """`size` bytes from a pipe; fewer only when the other side is gone."""
    if size:
        _stay_awake_for(end)
    data = b""
    while len(data) < size:
        part = os.read(end, size - len(data))
        if not part:
            return b""
        data += part
    return data


def _stay_awake_for(end: int) -> None:
    """Until there is something to read, or AWAKE is over: to be woken takes as long as that."""
    poller = select.poll()
    poller.register(end, select.POLLIN)
    until = time.perf_counter() + AWAKE
    while not poller.poll(0) and time.perf_counter() < until:
        pass


@functools.cache
def _blas_libraries() -> list[LibController]:
    """The BLAS libraries in this process; looking for them takes milliseconds, so only once."""
    from threadpoolctl import ThreadpoolController  # noqa: PLC0415  (a slow import)

    return [lib for lib in ThreadpoolController().lib_controllers if lib.user_api == "blas"]


@contextlib.contextmanager
def _one_blas_thread() -> Iterator[None]:
    """BLAS on one thread inside, as it was outside."""
    libraries = _blas_libraries()
    before = [lib.num_threads for lib in libraries]
    try:
        for lib in libraries:
            lib.set_num_threads(1)
        yield
    finally:
        for lib, threads in zip(libraries, before, strict=True):
            lib.set_num_threads(threads)
