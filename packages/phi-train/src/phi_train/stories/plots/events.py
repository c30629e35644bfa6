"""Free events: what may happen before the plot begins. How many do is the grammar's knob.

Each ends with `then=".. middle"`, so that another event or the plot follows.
"""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["EVENTS"]

COME = "enter c; come c; event"

EVENTS = [
    line(
        4,
        "{x?owner} gave the {o?held_x} to {y?not_x}.",
        when="things",
        do="give x y o; event",
        then="thanks middle",
    ),
    line(
        1,
        "{x?who} found {:look.a} {o=present} [under*3|behind*2|near*2] the {:furniture}.",
        when="few_things",
        do="get x o; event",
        then="middle",
    ),
    line(2, "Then they [went*3|walked|ran] {p=far_place.to}.", do="go p; event", then="middle"),
    line(2, "They [saw*3|looked at] {:sight}.", do="event", then="middle"),
    line(2, "They [liked*2|loved|wanted] to {:hobby}.", do="event", then="middle"),
    line(2, "They sat down and ate some {:food.some}.", do="event", then="middle"),
    line(0.2, "{c=guest} came to play with them.", when="pair", do=COME, then="middle"),
]
