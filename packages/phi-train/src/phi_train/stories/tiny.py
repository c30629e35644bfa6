"""A tiny grammar, made of the same parts as the default one, all of whose stories can be listed."""

from __future__ import annotations

from phi_train.stories.grammar import StoryGrammar
from phi_train.stories.template import line
from phi_train.stories.words import WordClass, character, place, plain, thing

__all__ = ["tiny_grammar"]

CLASSES = [
    WordClass("child", [character("Mia", she=True), character("Tom", she=False)], zipf=0.5),
    WordClass("toy", [thing("ball"), thing("kite"), thing("egg")], zipf=1.0),
    WordClass("place", [place("park", "at"), place("hill", "on")]),
    WordClass("food", [thing("apple"), thing("plum")]),
    WordClass("number", [plain("one"), plain("two")]),
]

NODES = {
    "start": [
        line(2, "{a=child} met {b=child} {p=place.at}.", do="enter a; enter b; go p", then="has"),
    ],
    "has": [
        line(3, "{x?who} had {o=toy.a}.", do="get x o", then="middle"),
        line(1, "{x?who} had {n:number} {f=food.some}.", do="count x n", then="share"),
    ],
    "share": [
        line(1, "{x} gave {f.a} to {y?not_x}.", do="share x y", then="left end"),
    ],
    "left": [line(1, "Now {x} had {x#} left.")],
    "middle": [
        line(1, "{x?owner} [hugged*2|dropped] the {o?held_x}.", then="end"),
    ],
    "end": [
        line(3, "{end}"),
        line(1, "{x.He} was happy.", then="stop"),
    ],
    "stop": [line(1, "{end}")],
}

EVENTS = [
    line(
        2,
        "{x?owner} gave {y?not_x} {x.his} {o?held_x}.",
        do="give x y o; event",
        then="middle",
    ),
    line(1, "{x?who} found {o=toy.a}.", when="few_things", do="get x o; event", then="middle"),
]


def tiny_grammar() -> StoryGrammar:
    """A few words, one or two events: some hundreds of stories, for tests and for learning."""
    return StoryGrammar(
        events=(0.0, 0.7, 0.3),
        classes={words.name: words for words in CLASSES},
        nodes=NODES,
        free=EVENTS,
    )
