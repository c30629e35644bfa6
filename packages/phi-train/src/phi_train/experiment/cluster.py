"""Trials on other machines: Dask's scheduler and workers, when one machine is not enough.

Whatever runs Python joins, a phone or a board, with `dask worker tcp://ADDRESS:8786 --nthreads 1`
in a copy of the repository with the same packages. A worker that dies gives its trial back, and
Dask gives it to another; there is no queue of our own. A trial reads the data that its settings
name, so paths must be the same everywhere (or data "builtin", or a variable, "${NAME}/x.txt").
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

from phi_train.errors import ConfigError, Stopped
from phi_train.experiment.execute import LONGEST_ERROR, Task, discard, execute
from phi_train.experiment.outcome import CRASHED, KILLED, Outcome
from phi_train.experiment.workers import Done

__all__ = ["Cluster", "cluster_workers"]

CONNECT = 15.0  # seconds until a scheduler that does not answer is told
BETWEEN_LOOKS = 2.0  # seconds between a trial's questions whether to stop
LOOK = 0.02  # seconds between looks at what is done
SAVING = 30.0  # seconds for trials to save when all is stopped


class Cluster:
    """The workers of a Dask scheduler. Raises ConfigError without Dask or an answer."""

    here = False

    def __init__(self, address: str) -> None:
        distributed = _distributed()
        try:
            self._client = distributed.Client(address, timeout=CONNECT, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise ConfigError(
                f"no Dask scheduler answers at {address}: start one with 'dask scheduler', then "
                "'dask worker ADDRESS --nthreads 1' on each machine"
            ) from error
        self._name = f"phi-stop-{time.time_ns()}"
        self._halt = distributed.Event(self._name, client=self._client)
        self._killed = distributed.scheduler.KilledWorker
        self._futures: list[tuple[Any, Task]] = []
        self._stopped_at = 0.0

    @property
    def size(self) -> int:
        """Threads of all workers now; they come and go. At least one: somebody may join yet."""
        return max(1, int(sum(self._client.nthreads().values())))

    def submit(self, task: Task) -> None:
        """Gives it to the scheduler."""
        future = self._client.submit(
            _remote, task, self._name, key=f"phi-{task.trial.key}-{time.time_ns()}", pure=False
        )
        self._futures.append((future, task))

    def done(self, seconds: float) -> Done | None:
        """One outcome, when there is one within so long."""
        end = time.monotonic() + seconds
        while self._futures:
            ready = next((pair for pair in self._futures if pair[0].done()), None)
            if ready is not None:
                self._futures.remove(ready)
                return ready[1], self._outcome_of(ready[0])
            if self._stopped_at and time.monotonic() > self._stopped_at + SAVING:
                return self._futures.pop()[1], Stopped()  # its worker is gone, or nobody has it
            if time.monotonic() >= end:
                break
            time.sleep(LOOK)
        return None

    def _outcome_of(self, future: Any) -> Outcome | Stopped:
        if future.cancelled():
            return Stopped()
        error = future.exception()
        if error is None:
            outcome: Outcome | Stopped = future.result()
            return outcome
        state = KILLED if isinstance(error, self._killed) else CRASHED
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return Outcome(state=state, error=text[:LONGEST_ERROR])

    def stop(self) -> None:
        """Asks the trials on all workers; those that nobody has begun are taken back."""
        if not self._stopped_at:
            self._stopped_at = time.monotonic()
            self._halt.set()

    def close(self) -> None:
        """Leaves; the scheduler forgets what is not finished."""
        self._client.close()


def cluster_workers(address: str) -> Callable[[Callable[[], bool]], Cluster]:
    """For drive(): as local_workers()."""
    return lambda _: Cluster(address)


def _remote(task: Task, event: str) -> Outcome | Stopped:
    """What a worker does. Stopped: it can go on, here or elsewhere."""
    distributed = _distributed()
    halt = distributed.Event(event)
    asked, answer = 0.0, False

    def stop() -> bool:
        nonlocal asked, answer
        if not answer and time.monotonic() >= asked + BETWEEN_LOOKS:
            try:
                answer = bool(halt.is_set())
            except Exception:  # nobody is left to ask, or to hear of the outcome
                answer = True
            asked = time.monotonic()
        return answer

    try:
        outcome = execute(task, stop)
    except Stopped as stopped:
        return stopped
    discard(task, outcome)
    return outcome


def _distributed() -> Any:
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise ConfigError("a cluster needs an extra: pip install 'phi-train[cluster]'") from error
