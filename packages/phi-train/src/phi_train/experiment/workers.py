"""Who makes the trials on this machine: this process, or a few more of one BLAS thread each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol

from phi_train.errors import Stopped
from phi_train.experiment.execute import Task, execute
from phi_train.experiment.outcome import KILLED, Outcome

__all__ = ["MOST_DEATHS", "Processes", "Serial", "Workers"]

MOST_DEATHS = 3  # of the processes of one trial
Done = tuple[Task, Outcome | Stopped]
"""A trial and its outcome; Stopped when it can go on, with a text for trouble of the machine."""


class Workers(Protocol):
    """Takes tasks, gives outcomes back in any order. here: trials' folders are on this machine."""

    size: int
    here: bool

    def submit(self, task: Task) -> None:
        """Begins with a task, or lets it wait for its turn."""

    def done(self, seconds: float) -> Done | None:
        """One that has come to an end, waiting for it up to so long; None where there is none."""

    def stop(self) -> None:
        """Asks every trial to save and end."""

    def close(self) -> None:
        """Ends everything; what is still at work is lost but for its last checkpoint."""


class Serial:
    """One after the other, here. stop: asked by each trial, as it is nobody else's turn."""

    size, here = 1, True

    def __init__(self, stop: Callable[[], bool] = lambda: False) -> None:
        self._stop, self._tasks = stop, deque[Task]()

    def submit(self, task: Task) -> None:
        """Lets it wait for done()."""
        self._tasks.append(task)

    def done(self, seconds: float) -> Done | None:  # noqa: ARG002 (it takes what it takes)
        """Makes the next trial."""
        if not self._tasks:
            return None
        task = self._tasks.popleft()
        return _attempt(task, self._stop)

    def stop(self) -> None:
        """Nothing: stop() of __init__ tells."""

    def close(self) -> None:
        """Nothing is left."""


def _attempt(task: Task, stop: Callable[[], bool]) -> Done:
    try:
        return task, execute(task, stop)
    except Stopped as stopped:
        return task, stopped


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    task: Task | None = None


class Processes:
    """A few processes that live as long as the session; one that dies gives its trial back."""

    here = True

    def __init__(self, size: int) -> None:
        self.size = size
        self._context = multiprocessing.get_context("spawn")  # no state of this process
        self._halt = self._context.Event()
        self._workers: list[_Worker] = []
        self._waiting = deque[Task]()
        self._deaths: dict[str, int] = {}

    def submit(self, task: Task) -> None:
        """Gives it to an idle process, or to the next that is."""
        self._waiting.append(task)
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting:
            idle = next((w for w in self._workers if w.task is None), None)
            if idle is None and len(self._workers) < self.size:
                idle = self._start()
            if idle is None:
                return
            idle.task = self._waiting.popleft()
            try:
                idle.pipe.send(idle.task)
            except OSError:  # it died idle: done() finds it
                return

    def _start(self) -> _Worker:
        mine, its = self._context.Pipe()
        process = self._context.Process(target=_work, args=(its, self._halt), daemon=True)
        process.start()
        its.close()
        self._workers.append(_Worker(process, mine))
        return self._workers[-1]

    def done(self, seconds: float) -> Done | None:
        """One outcome, when there is one within so long."""
        ready = wait([w.pipe for w in self._workers if w.task is not None], seconds)
        for worker in self._workers:
            if worker.pipe in ready and worker.task is not None:
                task = worker.task
                try:
                    outcome = worker.pipe.recv()
                except (EOFError, OSError):
                    return self._died(worker, task)
                worker.task = None
                self._hand_out()
                return task, outcome
        return None

    def _died(self, worker: _Worker, task: Task) -> Done | None:
        """The trial is given to another process; not for ever."""
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.join()
        code = worker.process.exitcode
        deaths = self._deaths[task.trial.key] = self._deaths.get(task.trial.key, 0) + 1
        if self._halt.is_set():
            return task, Stopped()
        if deaths >= MOST_DEATHS:
            self._hand_out()
            error = f"its process died {deaths} times, the last time with exit code {code}"
            return task, Outcome(state=KILLED, error=error)
        self._waiting.appendleft(task)
        self._hand_out()
        return None

    def stop(self) -> None:
        """Those at work save and end; those that wait are given back at once, by done()."""
        self._halt.set()

    def close(self) -> None:
        """Idle processes leave by themselves; others are ended."""
        self._halt.set()
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            if worker.task is not None:
                worker.process.terminate()
            worker.process.join(10)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()


def _work(pipe: Connection, halt: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    sys.stdin.close()
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        _, outcome = _attempt(task, halt.is_set)
        try:
            pipe.send(outcome)
        except OSError:
            return


def _leave_with_parent() -> None:
    """A parent that is killed cannot end its workers: they end themselves."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
