"""Sharing food: `x` has some, `y` none; the pieces are counted."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES", "OPENINGS"]

PLOT = "share_hungry share_one share_left end"

OPENINGS = [
    line(9, "\n{x?who} had {n:number} {f=food.some}.", do="count x n; food f", then=PLOT),
]

NODES = {
    "share_hungry": [
        line(3, "{y?not_x} was [very*2|so] hungry."),
        line(2, "{y?not_x} had nothing to eat."),
        line(2, '"May I have one?" asked {y?not_x}.'),
        line(1, '{y?not_x} said, "I love {f.some}!"'),
    ],
    "share_one": [
        line(4, "{x} gave one {f} to {y}.", do="share x y"),
        line(2, '"You can have one," said {x}, and {y} took {f.a}.', do="share x y"),
        line(1, "{x} wanted to share, so {x.he} gave {y} {f.a}.", do="share x y"),
    ],
    "share_left": [
        line(3, "Now {x} had {x#} left."),
        line(
            1,
            "Now {x} had {x#} left, and {x.he} gave one more to {y}.",
            when="x_has_food",
            do="share x y",
            then="share_left",
        ),
    ],
}
