"""The state of a story: who is in it, where they are, what they hold and how they feel.

Everything that a template may ask (`CONDITIONS`), choose among (`PICKERS`) or change (`EFFECTS`) is
here, one line each, by name. Generator, parser and enumeration run the very same functions; a task
about a story ("who has the ball?") reads the same fields.

A condition maps the world to a bool. A picker maps it to the list of candidates, each equally
likely. An effect gets the world and the names of roles: `give x y o` moves what `o` stands for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from phi_train.stories.words import Word

__all__ = ["CONDITIONS", "EFFECTS", "PICKERS", "World"]

NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class World:
    """What is true now. Roles are names that templates use ("a" the hero, "x" whoever acts, ..).

    Attributes:
        roles: role -> word, as the templates bound it last.
        cast: the characters, in the order in which they came.
        known: every character, thing and place so far: a new one is never one of these.
        place: character -> where they are.
        holder: thing -> who has it, or None when it is lost.
        feeling: character -> the feeling that was told last.
        count: character -> how many pieces of food they have (0 or absent: none).
        food: what is being counted.
        events: how many free events have happened.
        log: what happened, in order: tuples such as ("give", "Lily", "Tom", "ball").
    """

    __slots__ = (
        "cast",
        "count",
        "events",
        "feeling",
        "food",
        "holder",
        "known",
        "log",
        "place",
        "roles",
    )

    def __init__(self) -> None:
        self.roles: dict[str, Word] = {}
        self.cast: list[Word] = []
        self.known: list[Word] = []
        self.place: dict[Word, Word] = {}
        self.holder: dict[Word, Word | None] = {}
        self.feeling: dict[Word, Word] = {}
        self.count: dict[Word, int] = {}
        self.food: Word | None = None
        self.events = 0
        self.log: list[tuple[str, ...]] = []

    def copy(self) -> World:
        """An independent copy: changes to it leave this one as it is."""
        new = World()
        new.roles, new.cast, new.known = self.roles.copy(), self.cast.copy(), self.known.copy()
        new.place, new.holder = self.place.copy(), self.holder.copy()
        new.feeling, new.count = self.feeling.copy(), self.count.copy()
        new.food, new.events, new.log = self.food, self.events, self.log.copy()
        return new

    def held_by(self, who: Word | None) -> list[Word]:
        """The things that `who` has (None: that are lost), in the order in which they came."""
        return [thing for thing, holder in self.holder.items() if holder is who]


def _others(world: World, role: str) -> list[Word]:
    return [c for c in world.cast if c is not world.roles[role]]


def _owners(world: World) -> list[Word]:
    return [c for c in world.cast if c in world.holder.values()]


CONDITIONS: dict[str, Callable[[World], bool]] = {
    "pair": lambda w: len(w.cast) == 2,
    "many": lambda w: len(w.cast) > 2,
    "things": lambda w: any(w.holder.values()),
    "few_things": lambda w: len(w.holder) < 2,
    "one_owner": lambda w: len(_owners(w)) == 1,
    "two_owners": lambda w: len(_owners(w)) > 1,
    "x_has_o": lambda w: w.holder[w.roles["o"]] is w.roles["x"],
    "y_has_o": lambda w: w.holder[w.roles["o"]] is w.roles["y"],
    "a_has_food": lambda w: w.count[w.roles["a"]] > 0,
}

PICKERS: dict[str, Callable[[World], list[Word]]] = {
    "who": lambda w: w.cast,
    "owner": _owners,
    "not_owner": lambda w: [c for c in w.cast if c not in w.holder.values()],
    "held": lambda w: [thing for thing, who in w.holder.items() if who],
    "held_x": lambda w: w.held_by(w.roles["x"]),
    "held_y": lambda w: w.held_by(w.roles["y"]),
    "not_x": lambda w: _others(w, "x"),
    "owner_not_x": lambda w: [c for c in _owners(w) if c is not w.roles["x"]],
}


def _enter(world: World, role: str) -> None:
    world.cast.append(world.roles[role])


def _go(world: World, role: str) -> None:
    place = world.roles[role]
    for who in world.cast:
        world.place[who] = place
    world.log.append(("go", place.name))


def _get(world: World, role: str, thing: str) -> None:
    who, what = world.roles[role], world.roles[thing]
    world.holder[what] = who
    world.log.append(("get", who.name, what.name))


def _give(world: World, giver: str, taker: str, thing: str) -> None:
    source, target, what = world.roles[giver], world.roles[taker], world.roles[thing]
    if world.holder[what] is not source:  # a mistake in the grammar, never in a story
        raise AssertionError(f"{source.name} does not have the {what.name}")
    world.holder[what] = target
    world.log.append(("give", source.name, target.name, what.name))


def _lose(world: World, role: str, thing: str) -> None:
    who, what = world.roles[role], world.roles[thing]
    world.holder[what] = None
    world.log.append(("lose", who.name, what.name))


def _feel(world: World, role: str, feeling: str) -> None:
    world.feeling[world.roles[role]] = world.roles[feeling]


def _come(world: World, role: str) -> None:
    who, place = world.roles[role], world.place[world.cast[0]]
    world.place[who] = place
    world.log.append(("come", who.name, place.name))


def _as(world: World, new: str, old: str) -> None:
    world.roles[new] = world.roles[old]


def _hide(world: World, role: str, spot: str) -> None:
    who, where = world.roles[role], world.roles[spot]
    world.place[who] = where
    world.log.append(("hide", who.name, where.name))


def _find(world: World, role: str, hidden: str) -> None:
    who, other = world.roles[role], world.roles[hidden]
    world.place[other] = world.place[who]
    world.log.append(("find", who.name, other.name))


def _food(world: World, role: str) -> None:
    world.food = world.roles[role]


def _count(world: World, role: str, number: str) -> None:
    world.count[world.roles[role]] = NUMBERS.index(world.roles[number].name)


def _share(world: World, giver: str, taker: str) -> None:
    source, target = world.roles[giver], world.roles[taker]
    world.count[source] -= 1
    world.count[target] = world.count.get(target, 0) + 1
    world.log.append(("share", source.name, target.name))


def _event(world: World) -> None:
    world.events += 1


EFFECTS: dict[str, Callable[..., None]] = {
    "enter": _enter,
    "go": _go,
    "get": _get,
    "give": _give,
    "lose": _lose,
    "feel": _feel,
    "come": _come,
    "as": _as,
    "hide": _hide,
    "find": _find,
    "food": _food,
    "count": _count,
    "share": _share,
    "event": _event,
}
