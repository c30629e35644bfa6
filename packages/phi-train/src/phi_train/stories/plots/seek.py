"""Hide and seek: `b` hides at `h`, `a` looks elsewhere first."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES", "OPENINGS"]


OPENINGS = [
    line(
        3,
        "\nThen {a} and {b} played hide and seek.",
        then="seek_hide seek_look seek_found end",
    ),
    line(
        1,
        '\n"I will hide," said {b}. "Come and find me, {a}!"',
        then="seek_hide seek_found seek_after end",
    ),
]

NODES = {
    "seek_hide": [
        line(3, "{b} hid [behind*3|under*2|near] the {h=furniture}.", do="hide b h"),
        line(
            1,
            "{a} counted to ten, and {b} hid [behind|under] the {h=furniture}.",
            do="hide b h",
        ),
    ],
    "seek_look": [
        line(2, "{a} looked [behind|under|near] the {w=furniture}, but {b} was not there."),
        line(4, '"Where are you?" asked {a}.'),
        line(1, "{a} looked and looked."),
    ],
    "seek_found": [
        line(9, "At last, {a} found {b}.", do="find a b"),
        line(1, "Then {a} looked at the {h} and saw {b}.", do="find a b"),
        line(1, '"You are at the {h}!" [said*3|cried|shouted] {a}.', do="find a b"),
    ],
    "seek_after": [
        line(2, '"You found me!" said {b}.'),
        line(2, "{b} [laughed*3|jumped out|came out]."),
        line(1, '"Now it is my turn," said {b}.'),
    ],
}
