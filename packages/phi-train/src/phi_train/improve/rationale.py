"""Question, rationale and answer from a story's world: what its writer knows.

A rationale is the state asked for, in order: once as it was at first, once after each change.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from random import Random

from phi_train.stories import World
from phi_train.stories.lexicon import CLASSES
from phi_train.stories.words import Word
from phi_train.stories.world import NUMBERS

__all__ = ["explain"]

SPOTS = {word.name: word.forms["at"] for word in CLASSES["far_place"].words}  # forest: in the ..


def explain(world: World, kind: str, rng: Random) -> tuple[str, str, str]:
    """(question, rationale, answer) of one kind: of two subjects drawn, about the one of whom
    there is more to tell.
    """
    subjects = world.cast if kind in ("place", "count") else list(world.holder)
    told = [(subject, _states(world, kind, subject)) for subject in rng.sample(subjects, 2)]
    subject, states = max(told, key=lambda one: len(one[1]))
    rationale = " Now ".join(f"{state}." for state, _ in states)
    return _question(world, kind, subject.name), rationale, states[-1][1]


def _question(world: World, kind: str, name: str) -> str:
    if kind == "holder":
        return f"Who has the {name}?"
    if kind == "count":
        return f"How many {_food(world).forms['some']} does {name} have?"
    return f"Where is {name}?" if kind == "place" else f"Where is the {name}?"


def _states(world: World, kind: str, subject: Word) -> list[tuple[str, str]]:
    """(state in words, the answer it means), one for each change that is one."""
    name = subject.name
    if kind == "holder":
        found = [(f"{who} has the {name}", who) for who in _holders(world, subject)]
    elif kind == "place":
        moves = [place for who, place in _moves(world) if who == name]
        found = [(f"{name} is {SPOTS[place]}", place) for place in moves]
    elif kind == "thing place":
        both = _holders_and_places(world, subject)
        found = [(f"{who} has the {name} {SPOTS[place]}", place) for who, place in both]
    else:
        counts = _counts(world, subject)
        found = [(f"{name} has {_amount(world, n)}", NUMBERS[n]) for n in counts]
    return [state for state, _ in groupby(found)]


def _holders(world: World, thing: Word) -> list[str]:
    """Who had it, one after the other."""
    found = []
    for what, *names in world.log:
        if what in ("get", "give") and names[-1] == thing.name:
            found.append(names[-2])
    return found


def _moves(world: World) -> Iterator[tuple[str, str]]:
    """(child, place) in order, the beginning too."""
    for what, *names in world.log:
        if what == "go":
            yield from ((who.name, names[0]) for who in world.cast)
        elif what == "hide":
            yield names[0], names[1]


def _holders_and_places(world: World, thing: Word) -> Iterator[tuple[str, str]]:
    """Who had it and where they were, again at each change of either."""
    place: dict[str, str] = {}
    holder = ""
    for what, *names in world.log:
        if what == "go":
            place = {who.name: names[0] for who in world.cast}
        elif what == "hide":
            place[names[0]] = names[1]
            if names[0] == holder:
                yield holder, names[1]
        elif what in ("get", "give") and names[-1] == thing.name:
            holder = names[-2]
            yield holder, place[holder]


def _counts(world: World, child: Word) -> Iterator[int]:
    """How much food the child had, at first and after each change."""
    changes = [
        (names[1] == child.name) - (names[0] == child.name)
        for what, *names in world.log
        if what == "share" and child.name in names
    ]
    now = world.count.get(child, 0) - sum(changes)
    yield now
    for change in changes:
        now += change
        yield now


def _food(world: World) -> Word:
    if world.food is None:  # a mistake in the grammar, never in a story
        raise AssertionError("nobody has any food in this story")
    return world.food


def _amount(world: World, number: int) -> str:
    food = _food(world)
    if number == 1:
        return f"one {food.name}"
    return f"{NUMBERS[number] if number else 'no'} {food.forms['some']}"
