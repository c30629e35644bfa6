"""Being afraid: `x` is, `y` is with them, and it was nothing bad."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES", "OPENINGS"]

PLOT = "fear_comfort fear_truth end"

OPENINGS = [
    line(4, "\nSuddenly, there was a loud {:noise}, and {x?who} was scared.", then=PLOT),
    line(3, "\nIt got dark, and {x?who} was scared of {:fear}.", then=PLOT),
]

NODES = {
    "fear_comfort": [
        line(3, '"Do not be afraid, {x}," said {y?not_x}.'),
        line(3, "{y?not_x} hugged {x.him}."),
        line(2, '"I am here," said {y?not_x}. "We must be brave."'),
    ],
    "fear_truth": [
        line(4, "Then they saw that it was only {:small.a} {:animal}.", then="fear_over"),
        line(2, "They looked, and it was only {:sight}."),
        line(2, "They [sang*2|hummed|whistled] a song until {x} was not afraid."),
    ],
    "fear_over": [
        line(2, '{x} laughed and said, "I was so silly!"'),
        line(2, "{x} was not scared any more."),
    ],
}
