"""The loop: what is open is made, what comes out goes into the journal, until nothing is left.

>>> from phi_train.experiment import read_experiment, run_study
>>> run_study(read_experiment("experiments/warmup.toml"), workers=2)  # doctest: +SKIP
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi_train import __version__
from phi_train.environment import arithmetic
from phi_train.errors import RunError, Stopped
from phi_train.experiment.candidate import Candidate
from phi_train.experiment.execute import Task, discard, load_function, remove_run
from phi_train.experiment.experiment import Experiment
from phi_train.experiment.final import Final
from phi_train.experiment.journal import Journal
from phi_train.experiment.outcome import CRASHED, KILLED, Outcome
from phi_train.experiment.plan import Plan, Study
from phi_train.experiment.search import Search
from phi_train.experiment.trial import Trial
from phi_train.experiment.workers import Processes, Serial, Workers
from phi_train.interrupt import StopRequest
from phi_train.lock import RunLock

__all__ = [
    "WORK",
    "Session",
    "alone",
    "drive",
    "judgement",
    "known_search",
    "local_workers",
    "open_final",
    "run_search",
    "run_study",
]

WORK = "runs/experiments"
LOOK = 0.5  # seconds between looks at the clock

Say = Callable[[str], None]
Make = Callable[[Callable[[], bool]], Workers]


@dataclass(frozen=True)
class Session:
    """How a session ended."""

    made: int  # trials that came to an end
    left: int  # that could have been made as well
    reason: str  # "done", "stopped" (Ctrl-C) or "seconds"


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Nobody else reads a journal to go on from it, or writes into it. Raises RunError when another
    session has it.
    """
    lock = RunLock(path.with_suffix(".lock"))
    lock.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire()
    except RunError as error:
        raise RunError(f"{path} is in use by another session: wait for it") from error
    try:
        yield
    finally:
        lock.release()


def drive(
    plan: Plan,
    journal: Journal,
    task_of: Callable[[Trial], Task],
    make_workers: Make,
    *,
    deadline: Callable[[], float] = lambda: float("inf"),
    say: Say = lambda _: None,
) -> Session:
    """Makes the plan's trials until none is open, Ctrl-C, or the deadline (of time.monotonic).

    Call it alone() with the journal. Raises RunError when the disk is full or fails: everything
    is then saved that could be.
    """
    with StopRequest() as request:
        loop = _Loop(plan, journal, task_of, request, deadline, say)
        session = loop.run(make_workers)
    if loop.trouble:
        raise RunError(f"{loop.trouble}: mend that, and the same command goes on")
    return session


class _Loop:
    def __init__(
        self,
        plan: Plan,
        journal: Journal,
        task_of: Callable[[Trial], Task],
        request: StopRequest,
        deadline: Callable[[], float],
        say: Say,
    ) -> None:
        self.plan, self.journal, self.task_of, self.say = plan, journal, task_of, say
        self.request, self.deadline = request, deadline
        self.running: dict[str, Trial] = {}
        self.made = 0
        self.stopped = False
        self.trouble = ""  # of the machine

    def halted(self) -> bool:
        return self.stopped or self.request.requested or time.monotonic() >= self.deadline()

    def run(self, make_workers: Make) -> Session:
        workers = make_workers(self.halted)
        try:
            while True:
                open_trials = self.plan.open_trials(self.journal.get)
                if self.halted():
                    workers.stop()
                else:
                    self._submit(open_trials, workers)
                if not self.running:
                    break
                self._collect(workers)
        finally:
            workers.close()
        reason = "done"
        if open_trials:
            reason = "stopped" if self.stopped or self.request.requested else "seconds"
        return Session(self.made, len(open_trials), reason)

    def _submit(self, open_trials: list[Trial], workers: Workers) -> None:
        for trial in open_trials:
            if len(self.running) >= workers.size:
                return
            if trial.key not in self.running:
                if not self.made and not self.running:
                    self.journal.note(session=time.time(), version=__version__, **arithmetic())
                self.running[trial.key] = trial
                workers.submit(self.task_of(trial))

    def _collect(self, workers: Workers) -> None:
        found = workers.done(LOOK)
        if found is None:
            return
        task, outcome = found
        trial = self.running.pop(task.trial.key)
        if isinstance(outcome, Stopped):
            self.stopped = self.stopped or not self.halted()  # Ctrl-C reached the trial itself
            self.trouble = self.trouble or str(outcome)
            return
        self.journal.add(trial, outcome)
        if workers.here:
            discard(task, outcome)
        self.made += 1
        self.say(_line(trial, outcome, task.metric))


def _line(trial: Trial, outcome: Outcome, metric: str) -> str:
    what = f"{metric} {outcome.metrics[metric]:.4f}" if outcome.metrics else outcome.error
    stage = "" if trial.share == 1.0 else f", {trial.share:.0%} of its budget"
    return (
        f"{trial.arm}, seed {trial.seed}{stage}: {outcome.state}, {what} ({outcome.seconds:.1f} s)"
    )


def local_workers(number: int) -> Make:
    """In this process, or in so many."""
    return lambda stop: Serial(stop) if number == 1 else Processes(number)


def run_study(
    experiment: Experiment,
    *,
    work: str | os.PathLike[str] = WORK,
    workers: int = 1,
    make_workers: Make | None = None,
    seconds: float = 0.0,
    overrides: Mapping[str, Any] | None = None,
    retry: bool = False,
    say: Say = lambda _: None,
) -> Session:
    """Trains what is missing of a study; seconds: of this session, 0: until it is done.

    overrides: settings over those of every arm, such as {"data": ..}. retry: trials that crashed
    or whose process died are missing, too. Raises a PhiTrainError for
    data or a function that is not there; a trial that fails is an outcome.
    """
    if experiment.function:
        load_function(experiment.folder, experiment.function)
    with alone(experiment.journal):
        journal = Journal(experiment.journal)
        if retry:
            journal.forget((CRASHED, KILLED))
        return drive(
            Study(experiment, overrides=overrides),
            journal,
            _tasks(experiment, work),
            make_workers or local_workers(workers),
            deadline=_deadline(seconds),
            say=say,
        )


def _deadline(seconds: float) -> Callable[[], float]:
    end = time.monotonic() + seconds if seconds else float("inf")
    return lambda: end


def _tasks(experiment: Experiment, work: str | os.PathLike[str]) -> Callable[[Trial], Task]:
    def task_of(trial: Trial) -> Task:
        return Task(
            trial=trial,
            work=str(Path(work) / experiment.id),
            source=str(experiment.folder),
            function=experiment.function,
            metric=experiment.metric,
            keep=experiment.keep,
        )

    return task_of


# a search


def run_search(
    experiment: Experiment,
    *,
    work: str | os.PathLike[str] = WORK,
    workers: int = 1,
    make_workers: Make | None = None,
    seconds: float = 0.0,
    overrides: Mapping[str, Any] | None = None,
    retry: bool = False,
    say: Say = lambda _: None,
) -> tuple[Session, Search]:
    """Goes on with a search; seconds: of this session, 0: as long as its own budget lasts.

    retry: as of run_study. Raises RunError when its final text was opened: what is chosen after
    that is chosen by it.
    """
    with alone(experiment.journal):
        journal = Journal(experiment.journal)
        if _opened(journal):
            raise RunError(
                f"the final text of {experiment.id} was opened: whatever is chosen now would be "
                "chosen by it; start another search (another --work, or a file with another id)"
            )
        if len(journal):
            say(f"going on after {len(journal)} trials")
        if retry:
            journal.forget((CRASHED, KILLED))
        plan = Search(experiment, overrides=overrides)
        plan.open_trials(journal.get)  # what is known already is not told again
        tasks = _tasks(experiment, work)

        def tell(candidate: Candidate) -> None:
            say(judgement(candidate, plan))
            if candidate.state == "discard":  # its runs are not looked at again
                for trial in plan.made_of(candidate):
                    remove_run(tasks(trial))

        plan.tell = tell
        session = drive(
            plan,
            journal,
            tasks,
            make_workers or local_workers(workers),
            deadline=_deadline(seconds),
        )
    return session, plan


def judgement(candidate: Candidate, search: Search) -> str:
    """What was just decided, in a line; of the baseline the noise."""
    settings = search.settings
    if candidate.reference is None and candidate.state in ("open", "reference"):
        share = settings.shares[max(0, candidate.stage - (candidate.state == "open"))]
        return (
            f"{candidate.name}: {share:.0%} of the budget under {settings.seeds} seeds, standard "
            f"deviation {search.noise(share):.4f}"
        )
    words = f"{candidate.name}: {candidate.state}"
    d = candidate.difference
    if d is not None and math.isfinite(d.low):
        words += f", {d.mean:+.4f} ({d.low:+.4f} to {d.high:+.4f}, {d.pairs} pairs)"
    reason = candidate.reason
    if candidate.state == "waiting":  # what comes later decides that, too
        reason = f"goes on from {settings.shares[candidate.stage]:.0%} if it is among the best"
    return words + (f"; {reason}" if reason else "")


def known_search(
    experiment: Experiment, *, overrides: Mapping[str, Any] | None = None
) -> tuple[Search, Final | None]:
    """What the journal says of a search: all decisions, and the final test where it was made."""
    journal = Journal(experiment.journal)
    plan = Search(experiment, overrides=overrides)
    plan.open_trials(journal.get)
    if not _opened(journal):
        return plan, None
    final = Final(plan)
    final.open_trials(journal.get)
    return plan, final


def open_final(
    experiment: Experiment,
    *,
    work: str | os.PathLike[str] = WORK,
    workers: int = 1,
    overrides: Mapping[str, Any] | None = None,
    say: Say = lambda _: None,
) -> Session:
    """Measures baseline and winner on the third part of the held-out text, under new seeds; once.

    After it the search is closed. Raises RunError where nothing was promoted.
    """
    with alone(experiment.journal):
        plan, _ = known_search(experiment, overrides=overrides)
        if plan.best.number == 0:
            raise RunError(
                f"{experiment.id} has promoted nothing, so there is nothing to test: the final "
                "text stays closed"
            )
        journal = Journal(experiment.journal)
        if not _opened(journal):
            journal.note(opened=time.time(), winner=plan.best.name)
        final, tasks = Final(plan), _tasks(experiment, work)
        return drive(final, journal, tasks, local_workers(workers), say=say)


def _opened(journal: Journal) -> bool:
    return any("opened" in line for line in journal.lines)
