"""How a story begins: a hero `a`, a friend `b`, a place `p`, and what one of them has or likes."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES"]

ONCE = "[Once upon a time, there was*4|There once was|Long ago, there was*0.5]"
MET = "enter b; go p"

NODES = {
    "start": [
        line(5, f"{ONCE} {{:small.a}} girl named {{a=girl}}.", do="enter a", then="day about"),
        line(5, f"{ONCE} {{:small.a}} boy named {{a=boy}}.", do="enter a", then="day about"),
        line(
            4, f"{ONCE} {{:small.a}} {{:animal}} named {{a=pet}}.", do="enter a", then="day about"
        ),
        line(2, "{a=child} was {:small.a} {a.kid}.", do="enter a", then="day about"),
    ],
    "day": [
        line(4, "\nOne day, {a} went {p=place.to} with {a.his} friend {b=child}.", do=MET),
        line(2, "\nOne day, {a} went {p=place.to} with {a.his} {:animal} {b=pet}.", do=MET),
        line(3, "\nOne {:weather} day, {a} and {b=child} went {p=place.to}.", do=MET),
        line(3, "\nOne day, {a} met {:animal.a} named {b=pet} {p=place.at}.", do=MET),
        line(2, "\nOne day, {a} played {p=place.at} with {a.his} friend {b=child}.", do=MET),
    ],
    "about": [
        line(8, "{x?who} had {:look.a} {o=toy}.", do="get x o", then="middle"),
        line(2, "{a} took {a.his} {:look} {o=toy} with {a.him}.", do="get a o", then="middle"),
        line(2, "They [liked*2|loved|wanted] to {:hobby}.", then="middle"),
        line(1, "{b} [liked*2|loved|wanted] to {:hobby}.", then="middle"),
    ],
}
