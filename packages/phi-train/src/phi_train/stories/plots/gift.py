"""A surprise: it is the birthday of `y`, and `x` has a present `q`."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES", "OPENINGS"]

OPENINGS = [
    line(
        4,
        "\nIt was {y?who}'s birthday, and {x?not_y} [made*2|had|bought] {:look.a} {q=toy}.",
        do="get x q",
        then="gift_give thanks_q end",
    ),
    line(
        3,
        "\n{x?who} [made*2|bought] {:look.a} {q=toy} for {y?not_x}.",
        do="get x q",
        then="gift_hide gift_give end",
    ),
]

NODES = {
    "gift_hide": [
        line(3, "{x} hid the {q} [under*2|behind] the {:furniture}."),
        line(2, "{x} put the {q} in {:look.a} box."),
        line(1, "{x} could not wait."),
    ],
    "gift_give": [
        line(3, '"Surprise!" [said*2|shouted] {x}, and gave the {q} to {y}.', do="give x y q"),
        line(2, '"The {q} is for you," said {x}, and {y} took it.', do="give x y q"),
        line(
            1, '{y} opened {y.his} eyes and saw the {q}. "It is yours," said {x}.', do="give x y q"
        ),
    ],
    "thanks_q": [
        line(3, '"Thank you, {x}!" said {y}. "I love my {q}."'),
        line(2, "{y} was so {g:glad}.", do="feel y g"),
        line(2, "{y} [hugged*3|thanked] {x}."),
    ],
}
