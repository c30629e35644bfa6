"""Being afraid: `b` is, `a` is with them, and it was nothing bad."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES", "OPENINGS"]

PLOT = "fear_comfort fear_truth end"

OPENINGS = [
    line(2, "\nSuddenly, there was a loud {:noise}, and {b} was scared.", then=PLOT),
    line(2, "\nIt got dark, and {b} was scared of {:fear}.", then=PLOT),
]

NODES = {
    "fear_comfort": [
        line(3, '"Do not be afraid, {b}," said {a}.'),
        line(3, "{a} hugged {b}."),
        line(2, '"I am here," said {a}. "We must be brave."'),
    ],
    "fear_truth": [
        line(4, "Then they saw that it was only {:small.a} {:young}.", then="fear_over"),
        line(2, "They looked, and it was only {:sight}."),
        line(2, "They [sang*2|hummed|whistled] a song until {b} was not afraid."),
    ],
    "fear_over": [
        line(2, '{b} laughed and said, "I was so silly!"'),
        line(2, "{b} was not scared any more."),
    ],
}
