"""Sharing food: `a` has some, `b` none; the pieces are counted."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES", "OPENINGS"]

PLOT = "share_hungry share_one share_left end"

OPENINGS = [
    line(5, "\n{a} had {n:number} {f=food.some}.", do="count a n; food f", then=PLOT),
]

NODES = {
    "share_hungry": [
        line(3, "{b} was [very*2|so] hungry."),
        line(2, "{b} had nothing to eat."),
        line(2, '"May I have one?" asked {b}.'),
        line(1, '"I am hungry," said {b}.'),
    ],
    "share_one": [
        line(4, "{a} gave one to {b}.", do="share a b"),
        line(2, '"You can have one," said {a}.', do="share a b"),
        line(1, "{a} wanted to share, so {a.he} gave one to {b}.", do="share a b"),
    ],
    "share_left": [
        line(3, "Now {a} had {a#} left."),
        line(
            1,
            "Now {a} had {a#} left, and {a.he} gave one more to {b}.",
            when="a_has_food",
            do="share a b",
            then="share_left",
        ),
    ],
}
