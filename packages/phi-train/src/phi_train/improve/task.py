"""A task: a story, a question about its end, a rationale in plain words, the answer.

>>> print(next(tasks(seed=1, events=(2,), side="train")).prompt)  # doctest: +SKIP
Lily, Tom and Mia were at the park. ...
Question: Who has the ball?
Think:
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from random import Random

from phi_train.errors import ConfigError
from phi_train.improve.rationale import explain
from phi_train.improve.task_grammar import task_grammar

__all__ = ["KINDS", "SIDES", "Task", "side_of", "tasks"]

KINDS = ("holder", "place", "thing place", "count")
SIDES = ("train", "development", "test")
PARTS = 10  # one part in ten of all stories for tests, one for development


@dataclass(frozen=True)
class Task:
    """story, question and answer are text; events is the difficulty, kind one of KINDS."""

    story: str
    question: str
    rationale: str
    answer: str
    kind: str
    events: int

    @property
    def asked(self) -> str:
        """Story and question."""
        return f"{self.story}\nQuestion: {self.question}\n"

    @property
    def prompt(self) -> str:
        """What a model that thinks first goes on from."""
        return f"{self.asked}Think:"

    @property
    def hinted(self) -> str:
        """The same with the answer given: for the rationalisation of failures."""
        return f"{self.asked}Hint: {self.answer}\nThink:"

    @property
    def direct(self) -> str:
        """What a model that answers at once goes on from."""
        return f"{self.asked}Answer:"

    @property
    def completion(self) -> str:
        """The rationale of the one who wrote the story, and the answer."""
        return f" {self.rationale}\nAnswer: {self.answer}"


def side_of(story: str) -> str:
    """train, development or test: a property of the story's text, so they never share one.

    >>> side_of("Lily had a ball.")
    'train'
    """
    digest = blake2b(story.encode(), digest_size=8, person=b"tasks").digest()
    part = int.from_bytes(digest, "little") % PARTS
    return {0: "test", 1: "development"}.get(part, "train")


def tasks(*, seed: int, events: Sequence[int], side: str) -> Iterator[Task]:
    """An endless stream of one side's tasks, with numbers of events in turn.

    The same seed gives the same tasks. Raises ConfigError for a side that is none.
    """
    if side not in SIDES:
        raise ConfigError(f"side is {side!r}; it must be one of {', '.join(SIDES)}")
    if not events or min(events) < 0:
        raise ConfigError(f"events are {list(events)}; give one or more numbers, 0 or above")
    made = 0
    for index in count():
        n_events = events[made % len(events)]
        rng = Random(f"{seed} {index}")
        story = task_grammar(n_events).story(rng)
        if side_of(story.text) == side:
            made += 1
            kind = rng.choice(KINDS)
            question, rationale, answer = explain(story.world, kind, rng)
            yield Task(story.text, question, rationale, answer, kind, n_events)
