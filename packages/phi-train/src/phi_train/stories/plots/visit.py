"""A visit: they go to see a relative `m` of `x`, and bring or get food."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES", "OPENINGS"]


OPENINGS = [
    line(
        4, "\nThen {x?who} wanted to visit {x.his} {m=relative}.", then="visit_way visit_food end"
    ),
    line(3, '\n"Let us visit my {m=relative}," said {x?who}.', then="visit_there visit_food end"),
]

NODES = {
    "visit_way": [
        line(3, "On the way, they saw {s=sight}.", then="visit_on"),
        line(2, "They [walked*3|ran] for a long time."),
        line(2, "They took some {:food.some} for {x.his} {m}."),
    ],
    "visit_on": [
        line(3, "They also saw {t=sight}."),
        line(2, '"Look!" said {y?who}. "It is so {:look}!"'),
        line(2, "{y?who} waved at it."),
    ],
    "visit_there": [
        line(3, "{x.His} {m} was so {:glad} to see them."),
        line(2, '"Come in!" said the {m}.'),
        line(1, "The {m} [hugged*3|kissed] {x}."),
    ],
    "visit_food": [
        line(3, "They ate {:food.some} and {:food.some} together."),
        line(2, "The {m} gave them some {:food.some}."),
        line(2, "The {m} told them a story about {:sight}."),
        line(2, "The {m} gave {:look.a} {q=toy} to {x}.", do="get x q", then="thanks_x"),
    ],
}
