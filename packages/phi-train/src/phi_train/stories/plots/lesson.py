"""Learning a lesson: `a` is told not to do something, does it, and is sorry."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES", "OPENINGS"]

PLOT = "lesson_deed lesson_hurt lesson_care moral"

TOLD = "lesson_deed lesson_hurt lesson_learned moral"

OPENINGS = [
    line(3, '\n"Do not {d:rule}, {a}," said {b}.', then=TOLD),
    line(1, "\n{a} wanted to {d:rule}, but {b} said no.", then=PLOT),
]

NODES = {
    "lesson_deed": [
        line(8, "But {a} did not listen."),
        line(1, "But {a} {d.past}."),
        line(1, '"I am not afraid," said {a}, and {d.past}.'),
    ],
    "lesson_hurt": [
        line(4, "{a.He} fell and hurt {a.his} {:body}."),
        line(2, "{a.He} got {g:sad}.", do="feel a g"),
        line(2, '"Ouch!" cried {a}. "My {:body}!"'),
    ],
    "lesson_care": [
        line(3, "{b} [ran*2|came] to help {a.him}."),
        line(2, "{b} hugged {a.him}."),
        line(2, "{b} got {:job.a}, who helped {a}."),
    ],
    "lesson_learned": [
        line(3, '"I am sorry," said {a}. "I will listen next time."'),
        line(2, "{a} said that {a.he} was sorry."),
        line(2, "Now {a} knew that {a.he} should {:virtue}."),
    ],
}
