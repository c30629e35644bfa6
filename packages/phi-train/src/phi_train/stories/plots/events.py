"""Free events: what may happen before the plot begins. How many do is the grammar's knob.

Each ends with `then=".. middle"`, so that another event or the plot follows.
"""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["EVENTS"]

EVENTS = [
    line(
        2,
        "{x?who} found {:look.a} {o=toy} [under*3|behind*2|near*2|next to] the {:furniture}.",
        when="few_things",
        do="get x o; event",
        then="middle",
    ),
    line(
        4,
        "{x?owner} gave the {o?held_x} to {y?not_x}.",
        when="things",
        do="give x y o; event",
        then="thanks middle",
    ),
    line(2, "Then they [went*3|walked|ran] {p=place.to}.", do="go p; event", then="middle"),
    line(1, "They [saw*3|looked at] {:sight}.", do="event", then="middle"),
    line(1, "{p.At}, they saw {:sight}.", do="event", then="middle"),
    line(2, "They sat down and ate some {:food.some}.", do="event", then="middle"),
    line(2, "They played with the {o?held}.", when="things", do="event", then="middle"),
    line(
        2,
        '{x?who} [said*2|shouted], "I like the {o?held}!"',
        when="things",
        do="event",
        then="middle",
    ),
    line(
        0.5,
        "{c=child} [came*2|wanted] to play with them.",
        when="pair",
        do="enter c; come c; event",
        then="middle",
    ),
]
