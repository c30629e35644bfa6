"""Stories to ask about: three children, two toys, some food, and a number of events.

A grammar of phi_train.stories, made of its words: so a story's entropy is known, its parser reads
it, and the number of events is its knob for difficulty. Nobody is told what follows from an event:
that is asked.

>>> task_grammar(2).story(seed=1).text.count(".") >= 6
True
"""

from __future__ import annotations

from functools import cache

from phi_train.stories import StoryGrammar, WordClass, line
from phi_train.stories.lexicon import CLASSES
from phi_train.stories.words import Word, plain

__all__ = ["task_grammar"]


def _some(name: str, *sources: str, of: int) -> WordClass:
    """The first `of` words of each of the lexicon's classes, all equally likely."""
    words: list[Word] = [word for source in sources for word in CLASSES[source].words[:of]]
    return WordClass(name, words, zipf=0.0)


TASK_CLASSES = [
    _some("child", "girl", "boy", of=8),
    _some("toy", "toy", of=8),
    _some("spot", "far_place", of=8),
    _some("food", "food", of=4),
    WordClass("number", [plain(word) for word in ("two", "three", "four", "five")], zipf=0.0),
]

NODES = {
    "start": [
        line(
            1,
            "{a=child}, {b=child} and {c=child} were {p=spot.at}.",
            do="enter a; enter b; enter c; go p",
            then="toy toy food middle",
        ),
    ],
    "toy": [line(1, "{x?who} had {o=toy.a}.", do="get x o")],
    "food": [line(1, "{a} had {n:number} {f=food.some}.", do="count a n; food f")],
    "share": [line(1, "{a} gave one {f} to {y?not_x}.", do="share x y")],
    "middle": [line(1, "{end}")],
}

# "hide" is the effect that moves one child alone; "as x a" keeps the giver out of the receivers
EVENTS = [
    line(3, "{x?owner} gave the {o?held_x} to {y?not_x}.", do="give x y o; event", then="middle"),
    line(3, "{x?who} [went|ran|walked] {q:spot.to}.", do="hide x q; event", then="middle"),
    line(
        2,
        "{a} opened the bag.",
        when="a_has_food",
        do="as x a; event",
        then="share middle",
    ),
]


@cache
def task_grammar(events: int) -> StoryGrammar:
    """The grammar of stories with just so many events, 0 or more."""
    return StoryGrammar(
        events=events,
        classes={words.name: words for words in TASK_CLASSES},
        nodes=NODES,
        free=EVENTS,
    )
