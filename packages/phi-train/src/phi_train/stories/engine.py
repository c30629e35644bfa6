"""The generator: walks from node to node, draws, writes, and adds up the log-probabilities.

One pass, one uniform number for each choice, nothing is ever thrown away. `u` is any function that
returns uniform numbers in [0, 1): `random.Random(..).random` in the grammar.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from phi_train.stories.template import BIND, COUNT, LITERAL, PICK, REFER, WORD
from phi_train.stories.world import NUMBERS, World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from phi_train.stories.template import Node

__all__ = ["START", "write"]

START = "start"


def write(nodes: Mapping[str, Node], u: Callable[[], float]) -> tuple[str, float, World]:
    """One story: its text, its log-probability in nats (with its end), the world at its end."""
    world = World()
    roles, known = world.roles, world.known
    pieces: list[str] = []
    put = pieces.append
    total = 0.0
    todo = [START]
    while todo:
        told, log_prob = nodes[todo.pop()].draw(world, u())
        total += log_prob
        for kind, text, form, words, pick in told.ops:
            if kind == LITERAL:
                put(text)
            elif kind == REFER:
                put(roles[text].forms[form])
            elif kind == WORD:
                word, log_prob = words.draw(u())
                total += log_prob
                if text:
                    roles[text] = word
                put(word.forms[form])
            elif kind == BIND:
                word, log_prob = words.draw(u(), known)
                total += log_prob
                roles[text] = word
                known.append(word)
                put(word.forms[form])
            elif kind == PICK:
                candidates = pick(world)
                word = candidates[0]
                if len(candidates) > 1:
                    word = candidates[int(u() * len(candidates))]
                    total -= log(len(candidates))
                roles[text] = word
                put(word.forms[form])
            elif kind == COUNT:
                put(NUMBERS[world.count[roles[text]]])
        for effect, names in told.effects:
            effect(world, *names)
        todo.extend(told.then)
    return "".join(pieces), total, world
