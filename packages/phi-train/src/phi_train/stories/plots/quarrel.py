"""A small quarrel: both want `o`; `x` gets angry first, `y` is sorry first."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES", "OPENINGS"]

PLOT = "quarrel_words quarrel_sorry quarrel_peace happy"

OPENINGS = [
    line(8, "\nBut then they both wanted the {o?held}.", when="things", then=PLOT),
    line(
        3,
        "\n{x?owner} had the {o?held_x}, but {y?not_x} took it away.",
        when="things",
        do="give x y o",
        then="quarrel_cry quarrel_back happy",
    ),
]

NODES = {
    "quarrel_words": [
        line(4, '"It is mine!" [said*3|cried|shouted] {x?who}.'),
        line(3, '"Give me the {o}!" [said*3|cried|shouted] {x?who}.'),
        line(2, '"No, it is my {o}!" [said*3|cried|shouted] {x?who}.'),
        line(1, "{x?who} was very {g:sad}.", do="feel x g"),
    ],
    "quarrel_cry": [
        line(3, '"It is mine!" [said*3|cried|shouted] {x}.'),
        line(3, '"Give me the {o}!" [said*3|cried|shouted] {x}.'),
        line(2, "{x} was very {g:sad}.", do="feel x g"),
    ],
    "quarrel_sorry": [
        line(3, '"I am sorry," said {y?not_x}.'),
        line(2, '"I am sorry, {x}," said {y?not_x}.'),
        line(1, '{:job.The} came and said, "You must {:virtue}."'),
    ],
    "quarrel_peace": [
        line(3, '"We can share the {o}," said {x}.'),
        line(2, '"We can play together," said {x}.'),
        line(2, "They [hugged*2|shook hands|made up]."),
    ],
    "quarrel_back": [
        line(3, "{y} was sorry and gave the {o} back to {x}.", do="give y x o"),
        line(2, '"I am sorry," said {y}, and gave the {o} back.', do="give y x o"),
    ],
}
