"""The parser: recovers the choices from the text alone and returns the text's log-probability.

It shares the data and the world with the generator, not its choices: at each node it tries the
possible lines on the text, word by word, and takes the one that fits. No line of a node may begin
another line of the same node (`check_grammar` proves it), so the first fit is the only one.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from phi_train.stories.engine import START
from phi_train.stories.errors import NotAStory
from phi_train.stories.template import BIND, COUNT, END, LITERAL, PICK, REFER
from phi_train.stories.world import NUMBERS, World

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from phi_train.stories.template import CompiledLine, Node, Op
    from phi_train.stories.words import Word

__all__ = ["read"]


def read(nodes: Mapping[str, Node], text: str) -> tuple[float, World]:
    """The log-probability of a story in nats (with its end), and the world at its end.

    Raises:
        NotAStory: the grammar cannot write this text; says where it stops and what could follow.
    """
    world = World()
    total = 0.0
    position = 0
    todo = [START]
    while todo:
        table = nodes[todo.pop()].table(world)
        for told, log_prob in zip(table.lines, table.log_probs, strict=True):
            reader = _Reader(text, world)
            if reader.match(told.ops, 0, position):
                total += log_prob + reader.log_prob
                position = reader.position
                break
        else:
            raise _failure(text, world, position, table.lines)
        for effect, names in told.effects:
            effect(world, *names)
        todo.extend(told.then)
    return total, world


class _Reader:
    """One attempt at one line; binds roles as it goes, and unbinds them where it must go back."""

    def __init__(self, text: str, world: World, trace: list[tuple[int, str]] | None = None):
        self.text, self.world, self.trace = text, world, trace
        self.position, self.log_prob = 0, 0.0

    def match(self, ops: tuple[Op, ...], step: int, position: int) -> bool:
        text = self.text
        while step < len(ops):
            op = ops[step]
            kind = op.kind
            step += 1
            if kind == LITERAL:
                written = op.text
            elif kind == REFER:
                written = self.world.roles[op.text].forms[op.form]
            elif kind == COUNT:
                written = NUMBERS[self.world.count[self.world.roles[op.text]]]
            elif kind == END:
                written = ""
                if position != len(text):
                    return self._fail(position, "the end of the text")
            else:
                return self._match_choice(op, ops, step, position)
            if not text.startswith(written, position):
                return self._fail(position, written)
            position += len(written)
        self.position = position
        return True

    def _match_choice(self, op: Op, ops: tuple[Op, ...], step: int, position: int) -> bool:
        roles, known = self.world.roles, self.world.known
        before = roles.get(op.text)
        for word, written, log_prob in self._candidates(op, position):
            if op.text:
                roles[op.text] = word
            if op.kind == BIND:
                known.append(word)
            self.log_prob += log_prob
            if self.match(ops, step, position + len(written)):
                return True
            self.log_prob -= log_prob
            if op.kind == BIND:
                known.pop()
        if before is not None:
            roles[op.text] = before
        else:
            roles.pop(op.text, None)
        name = "one of the characters or things" if op.kind == PICK else f"({op.words.name})"
        return self._fail(position, name)

    def _candidates(self, op: Op, position: int) -> Iterator[tuple[Word, str, float]]:
        if op.kind == PICK:
            words = op.pick(self.world)
            for word in words:
                written = word.forms[op.form]
                if self.text.startswith(written, position):
                    yield word, written, -log(len(words))
            return
        used = self.world.known if op.kind == BIND else ()
        for i, written in op.words.starting(self.text, position, op.form):
            if op.words.words[i] not in used:
                log_prob = op.words.log_probs[i] - op.words.log_free(used)
                yield op.words.words[i], written, log_prob

    def _fail(self, position: int, expected: str) -> bool:
        if self.trace is not None:
            while expected and self.text[position : position + 1] == expected[0]:
                position, expected = position + 1, expected[1:]
            self.trace.append((position, expected))
        return False


def _failure(text: str, world: World, position: int, lines: list[CompiledLine]) -> NotAStory:
    """Try again and keep notes: the furthest position is the one worth telling."""
    trace: list[tuple[int, str]] = []
    for told in lines:
        _Reader(text, world, trace).match(told.ops, 0, position)
    furthest = max(where for where, _ in trace)
    expected = dict.fromkeys(what for where, what in trace if where == furthest and what)
    return NotAStory(text, furthest, [w if w[0] in "(" else repr(w[:30]) for w in expected])
