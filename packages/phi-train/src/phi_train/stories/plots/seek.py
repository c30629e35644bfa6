"""Hide and seek: `y` hides at `h`, `x` looks elsewhere first."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES", "OPENINGS"]


OPENINGS = [
    line(
        5,
        "\nThen {x?who} and {y?not_x} played hide and seek.",
        then="seek_hide seek_look seek_found end",
    ),
    line(
        2,
        '\n"I will hide," said {y?who}. "Come and find me, {x?not_y}!"',
        then="seek_hide seek_found seek_after end",
    ),
]

NODES = {
    "seek_hide": [
        line(3, "{y} hid [behind*3|under*2|near] the {h=furniture}.", do="hide y h"),
        line(
            1,
            "{x} closed {x.his} eyes, and {y} hid [behind|under] the {h=furniture}.",
            do="hide y h",
        ),
    ],
    "seek_look": [
        line(3, "{x} looked [behind|under|near] the {w=furniture}, but {y} was not there."),
        line(2, '"Where are you?" [asked*2|called] {x}.'),
        line(1, "{x} looked and looked."),
    ],
    "seek_found": [
        line(3, "Then {x} looked at the {h} and saw {y}.", do="find x y"),
        line(2, "At last, {x} found {y} at the {h}.", do="find x y"),
        line(1, '"You are at the {h}!" [said*2|shouted] {x}.', do="find x y"),
    ],
    "seek_after": [
        line(2, '"You found me!" said {y}.'),
        line(2, "{y} [laughed*3|jumped out|came out]."),
        line(1, '"Now it is my turn," said {y}.'),
    ],
}
