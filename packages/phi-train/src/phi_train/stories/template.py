"""Lines and nodes: the notation in which plots are written, and its compiled form.

A node is a place in a plot where one of several lines follows. A line is a template with a weight:

    line(3, "{x?owner} gave the {o?held_x} to {y?not_x}.", when="things",
         do="give x y o; event", then="thanks middle")

    {a}         what role a stands for          {a.his}     the same in another form
    {a=toy}     a new word of class toy, now role a; never one that the story has already
    {:colour}   any word of a class, no role    {:colour.a} with its article
    {g:glad}    any word of a class, now role g, even if the story has it already
    {x?owner}   one of the candidates of a picker of `world.PICKERS`, now role x
    {a#}        how many pieces of food a has, as a word
    {end}       the end of the story
    [ran*2|walked]   one of these texts, with weights

`when` names conditions that must all hold, `do` the effects when the line has been told, `then` the
nodes that follow, in order. A line starts with a space unless it starts a paragraph ("\\n").
"""

from __future__ import annotations

import re
from bisect import bisect
from itertools import accumulate
from math import log
from typing import TYPE_CHECKING, NamedTuple

from phi_train.stories.errors import GrammarError
from phi_train.stories.words import Word, WordClass
from phi_train.stories.world import CONDITIONS, EFFECTS, PICKERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from phi_train.stories.world import World

__all__ = ["BIND", "COUNT", "END", "LITERAL", "PICK", "REFER", "WORD"]
__all__ += ["CompiledLine", "Line", "Node", "Op", "Table", "compile_line", "line"]

LITERAL, REFER, WORD, BIND, PICK, COUNT, END = range(7)

_NO_WORDS = WordClass("nothing", [Word("nothing")])
_SLOT = re.compile(
    r"\{(?P<end>end)\}|\[(?P<inline>[^\]]*)\]"
    r"|\{(?P<role>\w*)(?:(?P<sign>[=?:])(?P<source>\w+))?(?:\.(?P<form>\w+))?(?P<count>#)?\}"
)


class Line(NamedTuple):
    """A line as it is written in the data: see the module's docstring."""

    weight: float
    text: str
    when: str = ""
    do: str = ""
    then: str = ""


def line(weight: float, text: str, *, when: str = "", do: str = "", then: str = "") -> Line:
    """One line of a node, `weight` relative to the other lines that are possible there."""
    return Line(weight, text, when, do, then)


class Op(NamedTuple):
    """One step of a line: `text` is a literal or a role's name, depending on `kind`."""

    kind: int
    text: str
    form: str = "text"
    words: WordClass = _NO_WORDS
    pick: Callable[[World], list[Word]] = PICKERS["who"]


class CompiledLine(NamedTuple):
    """A line ready to be told: steps, effects with their roles, and what follows (last first)."""

    weight: float
    ops: tuple[Op, ...]
    when: tuple[str, ...]
    effects: tuple[tuple[Callable[..., None], tuple[str, ...]], ...]
    then: tuple[str, ...]
    source: Line
    group: int = 0


def _inline(text: str) -> WordClass:
    """`'ran*2|walked'` -> a class of these two, weights 2 and 1."""
    options, weights = [], []
    for option in text.split("|"):
        written, _, weight = option.partition("*")
        options.append(Word(written))
        weights.append(float(weight or 1))
    return WordClass(f"[{text}]", options, weights=weights)


def _slot(match: re.Match[str], classes: Mapping[str, WordClass]) -> Op:
    role, sign, source, form = (match[k] for k in ("role", "sign", "source", "form"))
    if match["end"]:
        return Op(END, "")
    if match["inline"] is not None:
        return Op(WORD, "", words=_inline(match["inline"]))
    if match["count"]:
        return Op(COUNT, role)
    if sign == "?":
        return Op(PICK, role, form or "text", pick=PICKERS[source])
    if sign is None:
        return Op(REFER, role, form or "text")
    return Op(BIND if sign == "=" else WORD, role, form or "text", classes[source])


def compile_line(source: Line, classes: Mapping[str, WordClass], *, first: bool) -> CompiledLine:
    """Check the names that a line uses and turn it into steps; `first`: it opens the story.

    Raises:
        GrammarError: for an unknown class, picker, condition or effect, and for stray brackets.
    """
    joined = first or source.text == "{end}" or source.text.startswith("\n")
    text = source.text if joined else " " + source.text
    ops: list[Op] = []
    done = 0
    try:
        for match in _SLOT.finditer(text):
            if match.start() > done:
                ops.append(Op(LITERAL, text[done : match.start()]))
            ops.append(_slot(match, classes))
            done = match.end()
        effects = [effect.split() for effect in source.do.split(";") if effect]
        compiled = CompiledLine(
            source.weight,
            tuple([*ops, Op(LITERAL, text[done:])] if done < len(text) else ops),
            tuple(source.when.split()),
            tuple((EFFECTS[name], tuple(roles)) for name, *roles in effects),
            tuple(reversed(source.then.split())),
            source,
        )
        unknown = [name for name in compiled.when if name not in CONDITIONS]
    except KeyError as error:
        raise GrammarError(f"line {source.text!r}: there is no {error}") from None
    stray = [op.text for op in compiled.ops if op.kind == LITERAL and set(op.text) & set("{}[]|")]
    if unknown or stray:
        raise GrammarError(f"line {source.text!r}: cannot read {unknown + stray}")
    return compiled


class Table(NamedTuple):
    """The lines that are possible in some state, with their distribution (logs in nats)."""

    lines: list[CompiledLine]
    cumulative: list[float]
    log_probs: list[float]


class Node:
    """Lines, of which one is told next.

    Args:
        name: what `then` calls it.
        lines: the alternatives; those of group 1 carry on with free events, others are group 0.
        more: `more[k]` is the probability of group 1 after k events (0.0 past the end).
    """

    def __init__(self, name: str, lines: Sequence[CompiledLine], more: Sequence[float] = ()):
        self.name, self.lines, self.more = name, list(lines), tuple(more)
        self.conditions = sorted({c for item in lines for c in item.when})
        self._tests = [CONDITIONS[c] for c in self.conditions]
        self._tables: dict[tuple[int, ...], Table] = {}

    def table(self, world: World) -> Table:
        """The distribution over lines in this state; made once for each outcome of the tests.

        Raises:
            GrammarError: no line is possible.
        """
        if not self._tests and not self.more:
            key: tuple[int, ...] = ()
        else:
            key = (min(world.events, len(self.more)), *[test(world) for test in self._tests])
        table = self._tables.get(key)
        if table is None:
            table = self._tables[key] = self._make(key)
        return table

    def _make(self, key: tuple[int, ...]) -> Table:
        true = {c for c, holds in zip(self.conditions, key[1:], strict=bool(key)) if holds}
        lines = [item for item in self.lines if true.issuperset(item.when)]
        share = 0.0
        if self.more and key[0] < len(self.more):
            share = self.more[key[0]]
        totals = [sum(item.weight for item in lines if item.group == g) for g in (0, 1)]
        if not totals[0] or not totals[1]:  # only one group is possible: it gets everything
            share = 0.0 if totals[0] else 1.0
        shares = (1.0 - share, share)
        lines = [item for item in lines if shares[item.group] > 0]
        if not lines:
            raise GrammarError(f"node {self.name!r}: no line is possible when {sorted(true)} holds")
        probs = [item.weight / totals[item.group] * shares[item.group] for item in lines]
        return Table(lines, [*accumulate(probs[:-1]), 1.0], [log(p) for p in probs])

    def draw(self, world: World, u: float) -> tuple[CompiledLine, float]:
        """The line at uniform number `u` in [0, 1), and its log-probability."""
        table = self.table(world)
        i = bisect(table.cumulative, u)
        return table.lines[i], table.log_probs[i]
