"""How a story begins: a hero `a`, something about them, a friend `b`, a place `p`."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES"]

ONCE = "[Once upon a time, there was*4|There once was|Long ago, there was*0.5]"

NODES = {
    "start": [
        line(5, f"{ONCE} {{:small.a}} girl named {{a=girl}}.", do="enter a", then="about day"),
        line(5, f"{ONCE} {{:small.a}} boy named {{a=boy}}.", do="enter a", then="about day"),
        line(
            4, f"{ONCE} {{:small.a}} {{:animal}} named {{a=pet}}.", do="enter a", then="about day"
        ),
        line(2, "{a=child} was {:small.a} {a.kid}.", do="enter a", then="about day"),
    ],
    "about": [
        line(4, "{a} had {:look.a} {o=toy}.", do="get a o"),
        line(2, "{a.He} had {:look.a} {o=toy}.", do="get a o"),
        line(3, "{a} loved {a.his} {:look} {o=toy}.", do="get a o"),
        line(
            2,
            "{a.He} [loved*2|liked] to {:hobby}, and {a.he} had {:look.a} {o=toy}.",
            do="get a o",
        ),
        line(2, "{a.He} [loved*2|liked] to play with {a.his} {:look} {o=toy}.", do="get a o"),
    ],
    "day": [
        line(
            4,
            "\nOne day, {a} went {p=place.to} with {a.his} friend {b=child}.",
            do="enter b; go p",
            then="middle",
        ),
        line(
            2,
            "\nOne day, {a} went {p=place.to} with {a.his} {:animal} {b=pet}.",
            do="enter b; go p",
            then="middle",
        ),
        line(
            3,
            "\nOne {:weather} day, {a} and {b=child} went {p=place.to}.",
            do="enter b; go p",
            then="middle",
        ),
        line(
            3,
            "\nOne day, {a} met {:animal.a} named {b=pet} {p=place.at}.",
            do="enter b; go p",
            then="middle",
        ),
        line(
            2,
            "\nOne day, {a} was playing {p=place.at} when {a.his} friend {b=child} came.",
            do="enter b; go p",
            then="middle",
        ),
    ],
}
