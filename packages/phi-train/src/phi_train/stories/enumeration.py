"""All stories of a small grammar, one by one: the slow, obvious twin of generator and parser.

Every choice is followed every way, so this is for grammars with some thousands of stories, such as
`tiny_grammar()`; the default grammar has more than anybody can count.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from phi_train.stories.engine import START
from phi_train.stories.template import BIND, COUNT, END, LITERAL, PICK, REFER
from phi_train.stories.world import NUMBERS, World

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from phi_train.stories.grammar import StoryGrammar
    from phi_train.stories.template import Node, Op
    from phi_train.stories.words import Word

__all__ = ["all_stories"]


def all_stories(grammar: StoryGrammar) -> Iterator[tuple[str, float]]:
    """Every story of a grammar with its log-probability in nats, each choice sequence once.

    >>> from phi_train.stories.tiny import tiny_grammar
    >>> from math import exp
    >>> round(sum(exp(log_prob) for _, log_prob in all_stories(tiny_grammar())), 9)
    1.0
    """
    return _after(grammar.nodes, World(), (START,), "", 0.0)


def _after(
    nodes: Mapping[str, Node], world: World, todo: tuple[str, ...], text: str, log_prob: float
) -> Iterator[tuple[str, float]]:
    if not todo:
        yield text, log_prob
        return
    table = nodes[todo[-1]].table(world)
    for told, line_log_prob in zip(table.lines, table.log_probs, strict=True):
        for new, written, inner in _tellings(told.ops, world.copy()):
            for effect, names in told.effects:
                effect(new, *names)
            then = todo[:-1] + told.then
            yield from _after(nodes, new, then, text + written, log_prob + line_log_prob + inner)


def _tellings(ops: tuple[Op, ...], world: World) -> Iterator[tuple[World, str, float]]:
    """All ways to tell the rest of a line: the world after it, its text, its log-probability."""
    if not ops:
        yield world, "", 0.0
        return
    for new, written, log_prob in _op(ops[0], world):
        for last, rest, more in _tellings(ops[1:], new):
            yield last, written + rest, log_prob + more


def _op(op: Op, world: World) -> Iterator[tuple[World, str, float]]:
    if op.kind in (LITERAL, END):
        yield world, op.text, 0.0
    elif op.kind == REFER:
        yield world, world.roles[op.text].forms[op.form], 0.0
    elif op.kind == COUNT:
        yield world, NUMBERS[world.count[world.roles[op.text]]], 0.0
    else:
        for word, probability in _choices(op, world):
            new = world.copy()
            if op.text:
                new.roles[op.text] = word
            if op.kind == BIND:
                new.known.append(word)
            yield new, word.forms[op.form], log(probability)


def _choices(op: Op, world: World) -> list[tuple[Word, float]]:
    if op.kind == PICK:
        words = op.pick(world)
        return [(word, 1 / len(words)) for word in words]
    pairs = list(zip(op.words.words, op.words.probs, strict=True))
    if op.kind == BIND:
        pairs = [(word, p) for word, p in pairs if word not in world.known]
    total = sum(p for _, p in pairs)
    return [(word, p / total) for word, p in pairs]
