"""`StoryGrammar`: a source of stories that knows the probability of every text it can write."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from math import isclose
from random import Random
from typing import TYPE_CHECKING, Literal

from phi_train.stories.engine import START, write
from phi_train.stories.errors import GrammarError, NotAStory
from phi_train.stories.lexicon import CLASSES
from phi_train.stories.parser import read
from phi_train.stories.plots import EVENTS, NODES
from phi_train.stories.split import is_validation
from phi_train.stories.template import CompiledLine, Line, Node, compile_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from phi_train.stories.words import WordClass
    from phi_train.stories.world import World

__all__ = ["MIDDLE", "Parse", "Story", "StoryGrammar"]

MIDDLE = "middle"
"""The node where a free event may come before the plot goes on."""


@dataclass(frozen=True, slots=True)
class Story:
    """A story: `text`, its exact `log_prob` in nats (end included), and the `world` at its end.

    `index` is its number in the stream it came from, 0 outside of one.
    """

    text: str
    log_prob: float
    world: World
    index: int = 0


@dataclass(frozen=True, slots=True)
class Parse:
    """What the parser found: `log_prob` in nats and the `world` at the end of the story."""

    log_prob: float
    world: World


class StoryGrammar:
    """A story grammar.

    Args:
        events: the knob for difficulty, how many free events come before the plot: a number, or
            probabilities of 0, 1, 2, .. events. More events mean more to keep track of.
        classes: name -> words (default: `lexicon.CLASSES`).
        nodes: name -> lines (default: `plots.NODES`).
        free: the lines of free events (default: `plots.EVENTS`).

    Raises:
        GrammarError: probabilities that do not sum to 1, names that do not exist.

    >>> grammar = StoryGrammar()
    >>> story = grammar.story(seed=7)
    >>> abs(grammar.log_prob(story.text) - story.log_prob) < 1e-9
    True
    """

    def __init__(
        self,
        *,
        events: int | Sequence[float] = (0.85, 0.15),
        classes: Mapping[str, WordClass] = CLASSES,
        nodes: Mapping[str, Sequence[Line]] = NODES,
        free: Sequence[Line] = EVENTS,
    ) -> None:
        if isinstance(events, int):
            events = [0.0] * events + [1.0]
        if not isclose(sum(events), 1.0, abs_tol=1e-9) or min(events) < 0:
            raise GrammarError(f"events are probabilities that sum to 1, got {list(events)}")
        rest = [sum(events[k:]) for k in range(len(events))]
        more = [sum(events[k + 1 :]) / r if r > 0 else 0.0 for k, r in enumerate(rest)]
        self.events = tuple(events)
        self.classes = dict(classes)
        self.nodes: dict[str, Node] = {}
        for name, lines in nodes.items():
            compiled = [compile_line(item, classes, first=name == START) for item in lines]
            if name == MIDDLE:
                extra = [compile_line(item, classes, first=False) for item in free]
                compiled += [item._replace(group=1) for item in extra]
            self.nodes[name] = Node(name, compiled, more if name == MIDDLE else ())
        self._check_names()

    def _check_names(self) -> None:
        for name, node in self.nodes.items():
            missing = {n for item in node.lines for n in item.then if n not in self.nodes}
            if missing or not node.lines:
                raise GrammarError(f"node {name!r} leads to {sorted(missing)}, which do not exist")
        if START not in self.nodes:
            raise GrammarError(f"there is no node {START!r}")

    def lines(self) -> Iterator[tuple[str, CompiledLine]]:
        """All lines, each with the name of its node."""
        for name, node in self.nodes.items():
            for item in node.lines:
                yield name, item

    def story(self, rng: Random | None = None, *, seed: int = 0, index: int = 0) -> Story:
        """One story: from `rng`, or story `index` of the stream `seed` (the same for ever).

        The standard library's generator is seeded by (seed, index) for each story, so that any
        story of a stream can be had without those before it.
        """
        rng = rng or Random((seed << 64) + index)
        text, log_prob, world = write(self.nodes, rng.random)
        return Story(text, log_prob, world, index)

    def stories(
        self,
        seed: int,
        *,
        start: int = 0,
        split: Literal["train", "validation"] | None = None,
    ) -> Iterator[Story]:
        """An endless stream of stories, reproducible from `seed`.

        Args:
            seed: a number >= 0; streams of different seeds are independent.
            start: begin at this index: to resume after story s, `start=s.index + 1`.
            split: only stories of this side of `is_validation` (None: all of them).
        """
        rng = Random()
        for index in count(start):
            rng.seed((seed << 64) + index)
            text, log_prob, world = write(self.nodes, rng.random)
            if split is None or is_validation(text) == (split == "validation"):
                yield Story(text, log_prob, world, index)

    def parse(self, text: str) -> Parse:
        """Read one document (stripped, without its end token).

        Raises:
            NotAStory: the grammar cannot have written it.
        """
        return Parse(*read(self.nodes, text))

    def log_prob(self, text: str) -> float:
        """The log-probability of one document in nats, its end included, from the text alone.

        Raises:
            NotAStory: the grammar cannot have written it.
        """
        return read(self.nodes, text)[0]

    def accepts(self, text: str) -> bool:
        """Whether the grammar can have written this text, completely and consistently."""
        try:
            read(self.nodes, text)
        except NotAStory:
            return False
        return True
