"""Is every story told in one way only? A proof for the words of a grammar, and what clashes if not.

Reading is unambiguous when no line of a node, with any of its words, can begin another line of the
same node, nor itself with other words: then at each node at most one line, with one choice of
words, fits the text that follows, and by induction the text determines all choices.

`check_grammar` walks each pair of lines side by side, on the sets of texts that their slots can
write. What a role stands for is taken from the set of all words that it is ever given, except that
a role which neither line binds is the same in both. Conditions (`when`) are not looked at: lines
that exclude each other must still differ. Both can only add clashes, never hide one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from phi_train.stories.errors import GrammarError, NotAStory
from phi_train.stories.template import BIND, COUNT, END, LITERAL, PICK, REFER, WORD
from phi_train.stories.world import EFFECTS, NUMBERS, PICKERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from phi_train.stories.grammar import StoryGrammar
    from phi_train.stories.template import Op
    from phi_train.stories.words import Word

__all__ = ["Clash", "check_grammar", "find_clashes"]

END_MARK = "\0"
HOLDINGS = [pick for name, pick in PICKERS.items() if name.startswith("held")]


@dataclass(frozen=True, slots=True)
class Clash:
    """Two lines of a node that can write the same: `text` is what both can begin with."""

    node: str
    first: str
    second: str
    text: str

    def __str__(self) -> str:
        lines = f"{self.first!r} can begin {self.second!r}"
        return f"node {self.node!r}: {lines}, both write {self.text!r}"


class _Part(NamedTuple):
    """One step of a line as all that it can write.

    `key` is role and form of what both lines are sure to write alike; `twice` a text that two
    different choices share.
    """

    texts: tuple[str, ...]
    key: tuple[str, str] | None = None
    is_choice: bool = False
    twice: str | None = None


class _Values:
    """Which words each role can stand for: all that any line of the grammar gives it."""

    def __init__(self, grammar: StoryGrammar) -> None:
        told = [item for _, item in grammar.lines()]
        ops = [op for item in told for op in item.ops]
        self.words: dict[str, set[Word]] = {}
        for op in ops:
            if op.text and op.kind in (BIND, WORD):
                self.words.setdefault(op.text, set()).update(op.words.words)
        things = {names[-1] for item in told for f, names in item.effects if f is EFFECTS["get"]}
        people = {w for c in grammar.classes.values() for w in c.words if "he" in w.forms}
        objects = {w for role in things for w in self.words.get(role, ())}
        for op in ops:
            if op.kind == PICK:
                candidates = objects if op.pick in HOLDINGS else people
                self.words.setdefault(op.text, set()).update(candidates)

    def parts(self, ops: tuple[Op, ...]) -> list[_Part]:
        """A line as parts; a role that the line has bound itself is no longer "alike"."""
        bound: set[str] = set()
        parts = []
        for op in ops:
            part = self._part(op)
            parts.append(part._replace(key=None) if op.text in bound else part)
            if part.is_choice:
                bound.add(op.text)
        return parts

    def _part(self, op: Op) -> _Part:
        if op.kind in (LITERAL, END):
            return _Part((op.text if op.kind == LITERAL else END_MARK,))
        if op.kind == COUNT:
            return _Part(NUMBERS)
        words = op.words.words if op.kind in (BIND, WORD) else self.words.get(op.text, ())
        written = [w.forms[op.form] for w in words if op.form in w.forms]
        texts = tuple(dict.fromkeys(written))
        if op.kind == REFER:
            return _Part(texts, key=(op.text, op.form))
        twice = [t for t in texts if len(texts) < len(written) and written.count(t) > 1]
        return _Part(texts, is_choice=True, twice=twice[0] if twice else None)


class _Side(NamedTuple):
    """A line and how many of its parts have been walked."""

    parts: list[_Part]
    done: int

    def next(self) -> _Side:
        return _Side(self.parts, self.done + 1)

    @property
    def told(self) -> bool:
        return self.done == len(self.parts)


def _common(ahead: _Side, behind: _Side, left: str = "", written: str = "") -> str | None:
    """A text that one line can write whole and the other begin with, if there is one.

    Both are walked together: `left` is what the line ahead has written beyond the one behind.
    """
    seen: set[tuple[int, int, int, str]] = set()
    stack = [(ahead, behind, left, written)]
    while stack:
        ahead, behind, left, written = stack.pop()
        state = (id(ahead.parts), ahead.done, behind.done, left)
        if state in seen:
            continue
        seen.add(state)
        if behind.told or (ahead.told and not left):
            return written
        part = behind.parts[behind.done]
        key = None if left else part.key
        if key is not None and key == ahead.parts[ahead.done].key:
            stack.append((ahead.next(), behind.next(), "", f"{written}{{{key[0]}}}"))
            continue
        for text in part.texts:
            if text.startswith(left):
                more = text[len(left) :]
                stack.append((behind.next(), ahead, more, written + more))
            elif left.startswith(text):
                stack.append((ahead, behind.next(), left[len(text) :], written))
    return None


def find_clashes(grammar: StoryGrammar) -> Iterator[Clash]:
    """All pairs of lines of which one can begin the other; none: every story is read in one way."""
    values = _Values(grammar)
    for name, node in grammar.nodes.items():
        lines = [(told.source.text, values.parts(told.ops)) for told in node.lines]
        for n, (first, parts) in enumerate(lines):
            text = _clash_with_itself(parts)
            if text is not None:
                yield Clash(name, first, first, text)
            for second, other in lines[n + 1 :]:
                text = _common(_Side(parts, 0), _Side(other, 0))
                if text is not None:
                    yield Clash(name, first, second, text)


def _clash_with_itself(parts: list[_Part]) -> str | None:
    """Two different choices in one slot that lead to one text, if there are any."""
    for k, part in enumerate(parts):
        if not part.is_choice:
            continue
        if part.twice is not None:
            return part.twice
        texts, rest = set(part.texts), _Side(parts, k + 1)
        for text in part.texts:
            for size in range(len(text)):
                clash = _common(rest, rest, text[size:], text) if text[:size] in texts else None
                if clash is not None:
                    return clash
    return None


def _check_sampled(grammar: StoryGrammar, n_stories: int, seed: int) -> None:
    for story in islice(grammar.stories(seed), n_stories):
        try:
            log_prob = grammar.log_prob(story.text)
        except (NotAStory, KeyError) as error:
            where = f"story {story.index} of seed {seed}"
            raise GrammarError(f"{where} is not read: {error}") from error
        if abs(log_prob - story.log_prob) > 1e-9:
            raise GrammarError(f"story {story.index} of seed {seed} is read in another way")


def _check_words(grammar: StoryGrammar) -> None:
    for words in grammar.classes.values():
        texts = [w.name for w in words.words]
        twice = {t for t in texts if texts.count(t) > 1}
        if twice:
            raise GrammarError(f"class {words.name!r} has {sorted(twice)} twice")
    people = {w for c in grammar.classes.values() for w in c.words if "he" in w.forms}
    names = [w.name for w in people]
    if len(set(names)) < len(names):
        twice = {name for name in names if names.count(name) > 1}
        raise GrammarError(f"{sorted(twice)}: one name for two characters")


def check_grammar(grammar: StoryGrammar, *, n_stories: int = 300, seed: int = 0) -> None:
    """Raise if a story could be told in two ways; run it after adding a word or a plot.

    Args:
        grammar: the grammar to look at.
        n_stories: how many sampled stories are read back as well, which exercises every rule that
            the proof takes for granted (conditions, pickers, effects).
        seed: of these stories.

    Raises:
        GrammarError: says which lines of which node clash, and on what text.
    """
    _check_words(grammar)
    clashes = list(find_clashes(grammar))
    if clashes:
        raise GrammarError("\n".join(["the grammar is ambiguous:", *map(str, clashes)]))
    _check_sampled(grammar, n_stories, seed)
