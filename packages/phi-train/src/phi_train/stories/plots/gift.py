"""A surprise: it is the birthday of `b`, and `a` has a present `q`."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES", "OPENINGS"]

OPENINGS = [
    line(
        6,
        "\nIt was {b}'s birthday, and {a} [made*2|had|bought] {:look.a} {q=present}.",
        do="get a q",
        then="gift_give thanks_q end",
    ),
    line(
        4,
        "\n{a} [made*2|bought] {:look.a} {q=present} for {b}.",
        do="get a q",
        then="gift_hide gift_give end",
    ),
]

NODES = {
    "gift_hide": [
        line(3, "{a} hid the {q} [under*2|behind] the {:furniture}."),
        line(2, "{a} put the {q} in {:look.a} box."),
        line(1, "{a} could not wait."),
    ],
    "gift_give": [
        line(
            3, '"Surprise!" [said*3|cried|shouted] {a}, and gave the {q} to {b}.', do="give a b q"
        ),
        line(2, '"The {q} is for you," said {a}, and {b} took it.', do="give a b q"),
        line(
            1, '{b} opened {b.his} eyes and saw the {q}. "It is yours," said {a}.', do="give a b q"
        ),
    ],
    "thanks_q": [
        line(3, '"Thank you, {a}!" said {b}. "I love my {q}."'),
        line(2, "{b} was so {g:glad}.", do="feel b g"),
        line(2, "{b} [hugged*3|thanked] {a}."),
    ],
}
