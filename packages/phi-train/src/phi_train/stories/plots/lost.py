"""Lost and found: `x` loses `o`, `y` helps to look for it."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES", "OPENINGS"]

PLOT = "lost_help lost_found lost_back end"

OPENINGS = [
    line(4, "\nThen {x?owner} lost the {o?held_x}.", when="things", do="lose x o", then=PLOT),
    line(
        4,
        "\nBut soon {x?owner} could not find the {o?held_x}.",
        when="things",
        do="lose x o",
        then=PLOT,
    ),
    line(
        4,
        "\nSuddenly, {x?owner} dropped the {o?held_x} and it rolled away.",
        when="things",
        do="lose x o",
        then=PLOT,
    ),
]

NODES = {
    "lost_help": [
        line(3, '"Do not worry," said {y?not_x}. "[I will help you*2|We will find it]."'),
        line(2, '{y?not_x} said, "Let us look for it together."'),
        line(2, '"Where is my {o}?" {x} asked {y?not_x}.'),
        line(2, '"Can you help me?" {x} asked {y?not_x}.'),
        line(0.5, "{x.He} was very {g:sad}, but {y?not_x} helped {x.him}.", do="feel x g"),
    ],
    "lost_found": [
        line(
            4,
            "Then {y} found the {o} [under*3|behind*2|near*2|next to] the {:furniture}.",
            do="get y o",
        ),
        line(1, "They asked {:job.a}, who had not seen it.", then="lost_found"),
        line(
            2, "At last, {x} saw the {o} [under*3|behind*2|near*2] the {:furniture}.", do="get x o"
        ),
    ],
    "lost_back": [
        line(3, "{y} gave the {o} back to {x}.", when="y_has_o", do="give y x o", then="thanks_yx"),
        line(2, '"Here is your {o}," said {y}.', when="y_has_o", do="give y x o", then="thanks_yx"),
        line(2, "{x} hugged the {o}.", when="x_has_o"),
        line(2, '"I found it!" [said*3|cried|shouted] {x}.', when="x_has_o"),
        line(1, "{x} was so {g:glad}.", when="x_has_o", do="feel x g"),
    ],
}
