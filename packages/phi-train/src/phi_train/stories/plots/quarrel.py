"""A small quarrel: `x` has `o`, `y` wants it too; they make up."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES", "OPENINGS"]

PLOT = "quarrel_words quarrel_sorry quarrel_peace happy"

OPENINGS = [
    line(
        8,
        "\n{x?owner} had the {o?held_x}, but {y?not_x} wanted it too.",
        when="things",
        then=PLOT,
    ),
]

NODES = {
    "quarrel_words": [
        line(3, '"It is mine!" [said*2|shouted] {x}.'),
        line(3, '"Give me the {o}!" [said*2|shouted] {y}.'),
        line(2, '"No, it is my {o}!" [said*2|shouted] {x}.'),
        line(2, "{y} took the {o} and ran away.", do="give x y o"),
        line(1, "{y} pushed {x}, and {x} was {g:sad}.", do="feel x g"),
    ],
    "quarrel_sorry": [
        line(3, '"I am sorry," said {y}.'),
        line(2, '"I am sorry, {x}," said {y}.'),
        line(1, "{y} felt {g:sad} and said sorry.", do="feel y g"),
        line(1, '{:job.The} came and said, "You must {:virtue}."'),
    ],
    "quarrel_peace": [
        line(3, "{y} gave the {o} back to {x}.", when="y_has_o", do="give y x o"),
        line(2, '{x} smiled and said, "We can play together."'),
        line(2, '"We can share the {o}," said {x}.'),
        line(1, "They [hugged*2|shook hands|made up]."),
    ],
}
