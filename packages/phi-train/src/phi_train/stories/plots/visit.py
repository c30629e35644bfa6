"""A visit: they go to see a relative `m` of `a`, and bring or get food."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES", "OPENINGS"]


OPENINGS = [
    line(2, "\nThen {a} wanted to visit {a.his} {m=relative}.", then="visit_way visit_food end"),
    line(2, '\n"Let us visit my {m=relative}," said {a}.', then="visit_there visit_food end"),
]

NODES = {
    "visit_way": [
        line(3, "On the way, they saw {s=sight}.", then="visit_on"),
        line(2, "They [walked*3|ran] for a long time."),
        line(2, "They took some {:food.some} with them."),
    ],
    "visit_on": [
        line(1, "They also saw {t=sight}."),
        line(4, '"Look!" said {b}. "It is so {:look}!"'),
        line(2, "{b} waved at it."),
    ],
    "visit_there": [
        line(3, "They were so {:glad} to be there."),
        line(1, "{a.His} {m} was so {:glad} to see them."),
        line(1, '"Come in!" said the {m}.'),
        line(1, "The {m} [hugged*3|kissed] {a}."),
    ],
    "visit_food": [
        line(6, "They ate {s=food.some} and {t=treat.some} together."),
        line(1, "The {m} gave them some {:food.some}."),
        line(1, "The {m} told them a story about {:sight}."),
        line(1, "The {m} gave {:look.a} {q=present} to {a}.", do="get a q", then="thanks_a"),
    ],
}
