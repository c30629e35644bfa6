"""Learning a lesson: `x` is told not to do something, does it, and is sorry."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES", "OPENINGS"]

PLOT = "lesson_deed lesson_hurt lesson_care moral"

TOLD = "lesson_deed lesson_hurt lesson_learned moral"

OPENINGS = [
    line(4, '\n"Do not {d:rule}, {x?who}," said {y?not_x}.', then=TOLD),
    line(2, "\n{x?who} wanted to {d:rule}, but {y?not_x} said no.", then=PLOT),
]

NODES = {
    "lesson_deed": [
        line(3, "But {x} did not listen and {d.past}."),
        line(2, "But {x} {d.past}."),
        line(1, '"I am not afraid," said {x}, and {d.past}.'),
    ],
    "lesson_hurt": [
        line(4, "{x.He} fell and hurt {x.his} {:body}."),
        line(2, "{x.He} got {g:sad}.", do="feel x g"),
        line(2, '"Ouch!" cried {x}. "My {:body}!"'),
    ],
    "lesson_care": [
        line(3, "{y} [ran*2|came] to help {x.him}."),
        line(2, "{y} hugged {x.him}."),
        line(2, "{y} got {:job.a}, who helped {x}."),
    ],
    "lesson_learned": [
        line(3, '"I am sorry," said {x}. "I will listen next time."'),
        line(2, "{x} said that {x.he} was sorry."),
        line(2, "Now {x} knew that {x.he} should {:virtue}."),
    ],
}
