"""The thread that makes every text: in each round some texts come, some go, all others grow.

A round reads only so much of new prompts: a long one is read in several rounds.

Knows no HTTP and no event loop. A Job is handed in by submit(); after each round `listener` is
called, in the engine's thread, with the jobs that have news.

    engine = Engine(generator, slots=16, max_waiting=64, listener=lambda jobs: ...)
    engine.start()
    engine.submit([job])          # RequestError 429 when too many wait, 503 when it stops
    job.take()                    # from any thread: what was made since the last time
    job.cancel()                  # its slot is free in the next round
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from phi_infer.errors import PhiInferError
from phi_infer.generator import Generator
from phi_infer.request import Request, TokenChoice
from phi_infer.server.errors import RequestError
from phi_infer.steps import new_batch

__all__ = ["Engine", "Job", "News"]

PROMPT_TOKENS = 512  # read in one round: the texts that run do not halt for long

log = logging.getLogger("phi_infer.server")


@dataclass(frozen=True)
class News:
    """What was made since the last look. finish: how the text ended; error: why it was given up."""

    text: str
    choices: list[TokenChoice]  # where log-probabilities were asked for
    finish: str | None
    error: RequestError | None


class Job:
    """One text to make.

    deadline: time.monotonic() after which it is given up. owner: whoever waits for it; the
    engine only carries it along.
    """

    def __init__(self, request: Request, *, deadline: float, owner: object = None) -> None:
        self.request = request
        self.deadline, self.owner = deadline, owner
        self.n_prompt = len(request.seen)
        self.submitted = time.monotonic()
        self.first_token: float | None = None  # time.monotonic()
        self.cancelled = False
        self._news: deque[tuple[str, TokenChoice | None]] = deque()
        self._finish = request.finish
        self._error: RequestError | None = None

    def take(self) -> News:
        """What was made since the last call."""
        finish, error = self._finish, self._error  # read first: what they end is there already
        news = [self._news.popleft() for _ in range(len(self._news))]
        choices = [choice for _, choice in news if choice is not None]
        return News("".join(piece for piece, _ in news), choices, finish, error)

    def cancel(self) -> None:
        """Nobody wants the text any more."""
        self.cancelled = True

    def fail(self, error: RequestError) -> None:
        """Gives the text up."""
        self._error = error

    def draw(self, logits: Any) -> int:
        """Lets the request draw a token; the engine's part."""
        before = len(self.request.choices)
        token, piece = self.request.draw(logits)
        drawn = self.request.choices[before:]
        if piece or drawn:
            self._news.append((piece, drawn[0] if drawn else None))
        self._finish = self.request.finish
        return token


class Engine:
    """Makes texts side by side, `slots` of them; `max_waiting` more may wait.

    workers: processes that share the slots, forked here; threads where other ones run already.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        slots: int,
        max_waiting: int,
        listener: Callable[[Sequence[Job]], None],
        workers: int = 1,
    ) -> None:
        self._new_batch = partial(new_batch, generator.weights, slots, workers=workers)
        self._batch = self._new_batch()
        self._slots, self._max_waiting = slots, max_waiting
        self._listener = listener
        self._condition = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: dict[int, tuple[Job, int | None]] = {}  # slot -> job, its last token
        self._unread: tuple[int, list[int]] | None = None  # a slot, the rest of its prompt
        self._news: list[Job] = []
        self._closing = self._ending = False
        self._thread = threading.Thread(target=self._run, name="phi-engine", daemon=True)
        self.n_prompt_tokens = self.n_tokens = self.n_cancelled = 0
        self.on_first_token: Callable[[float], None] = lambda _seconds: None

    @property
    def n_waiting(self) -> int:
        """Texts without a slot."""
        return len(self._waiting)

    @property
    def n_running(self) -> int:
        """Texts in a slot."""
        return len(self._running)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """All of them, or none: RequestError when there is no room, or no more is taken."""
        with self._condition:
            if self._closing or not self.alive:
                raise RequestError(503, "the server is shutting down", code="shutting_down")
            free = self._slots - self.n_running
            if self.n_waiting + len(jobs) > free + self._max_waiting:
                raise RequestError(
                    429,
                    f"{self.n_running} texts are being made and {self.n_waiting} wait; "
                    "try again later",
                    code="queue_full",
                )
            self._waiting.extend(jobs)
            self._condition.notify()

    def close(self) -> None:
        """Takes no more; what was submitted goes on."""
        with self._condition:
            self._closing = True

    def end(self) -> None:
        """Gives up what is left, and ends the thread."""
        with self._condition:
            self._closing = self._ending = True
            self._condition.notify()

    def join(self, seconds: float) -> None:
        """Waits for the thread, after end()."""
        if self.alive:
            self._thread.join(seconds)

    # the engine's thread

    def _run(self) -> None:
        try:
            while self._waits_for_work():
                self._round()
        except Exception:  # not even a new batch could be made
            log.exception("the engine cannot go on")
        self.close()
        self._give_all_up(RequestError(503, "the server is shutting down", code="shutting_down"))
        self._batch.close()

    def _waits_for_work(self) -> bool:
        """True as soon as there is some, False when the thread is to end."""
        with self._condition:
            while not (self._waiting or self._running or self._ending):
                self._condition.wait()
            return not self._ending

    def _round(self) -> None:
        try:
            self._drop()
            self._admit()
            self._tell()  # first tokens do not wait for the others' next
            self._grow()
        except Exception:  # a bug, or no memory: those texts end, the server goes on
            log.exception("a round of the engine failed")
            self._give_all_up(RequestError(500, "the server failed to make this text"))
            self._batch.close()
            self._batch = self._new_batch()  # a worker may have died, or be half-way
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, []
        if news:
            self._listener(news)

    def _drop(self) -> None:
        """Texts that nobody waits for, or whose time is over, leave."""
        now = time.monotonic()
        with self._condition:
            gone = [job for job in self._waiting if job.cancelled or now > job.deadline]
            for job in gone:
                self._waiting.remove(job)
        for job in gone:
            self._leave(job)
        for slot, (job, _) in list(self._running.items()):
            if job.cancelled or now > job.deadline:
                self._release(slot)
                self._leave(job)

    def _leave(self, job: Job) -> None:
        if job.cancelled:
            self.n_cancelled += 1
            return
        job.fail(RequestError(504, "the request took longer than the server allows: ask for fewer "
                                   "tokens, or try again later", code="timeout"))  # fmt: skip
        self._news.append(job)

    def _release(self, slot: int) -> None:
        del self._running[slot]
        self._batch.remove(slot)
        if self._unread is not None and self._unread[0] == slot:
            self._unread = None

    def _admit(self) -> None:
        """Reads PROMPT_TOKENS: of the prompt that was begun, then of those that wait."""
        left = PROMPT_TOKENS
        if self._unread is not None:
            slot, ids = self._unread
            self._batch.extend(slot, ids[:left])
            left -= self._was_read(slot, ids, left)
        while left > 0 and self._batch.free:
            with self._condition:
                if not self._waiting:
                    return
                job = self._waiting.popleft()
            left -= self._begin(job, left)

    def _begin(self, job: Job, most: int) -> int:
        """A new text; how many tokens of its prompt were read."""
        if job.request.finish is not None:  # no token was asked for
            self._news.append(job)
            return 0
        ids = list(job.request.seen)
        try:
            slot = self._batch.add(ids[:most])
        except Exception:
            job.fail(RequestError(500, "the server failed to read this prompt"))
            self._news.append(job)
            raise
        self._running[slot] = job, None
        return self._was_read(slot, ids, most)

    def _was_read(self, slot: int, ids: list[int], most: int) -> int:
        """Notes that at most so many ids of a prompt were read; their number."""
        n_read = min(most, len(ids))
        self.n_prompt_tokens += n_read
        self._unread = (slot, ids[most:]) if ids[most:] else None
        if self._unread is None:
            self._draw(slot, self._batch.logits[slot])
        return n_read

    def _grow(self) -> None:
        tokens = {slot: token for slot, (_, token) in self._running.items() if token is not None}
        if not tokens:
            return
        slots = sorted(tokens)
        rows = self._batch.step(slots, [tokens[slot] for slot in slots])
        for slot, logits in zip(slots, rows, strict=True):
            self._draw(slot, logits)

    def _draw(self, slot: int, logits: Any) -> None:
        job = self._running[slot][0]
        try:
            token = job.draw(logits)
        except PhiInferError as error:
            job.fail(RequestError(500, str(error)))
            self._release(slot)
        except Exception:  # a bug that this text has shown: the others go on
            log.exception("a text could not go on")
            job.fail(RequestError(500, "the server failed to make this text"))
            self._release(slot)
        else:
            self._running[slot] = job, token
            self.n_tokens += 1
            if job.first_token is None:
                job.first_token = time.monotonic()
                self.on_first_token(job.first_token - job.submitted)
            if job.request.finish is not None:
                self._release(slot)
        self._news.append(job)

    def _give_all_up(self, error: RequestError) -> None:
        with self._condition:
            jobs = [*self._waiting, *(job for job, _ in self._running.values())]
            self._waiting.clear()
        for slot in list(self._running):
            self._release(slot)
        for job in jobs:
            job.fail(error)
        self._news += jobs
        self._tell()
