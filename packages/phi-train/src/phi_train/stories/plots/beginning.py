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
            4,
            f"{ONCE} {{:small.a}} {{:animal}} named {{a=hero_pet}}.",
            do="enter a",
            then="day about",
        ),
        line(1, "A {:small} girl was called {a=girl}.", do="enter a", then="day about"),
        line(1, "A {:small} {:animal} was called {a=hero_pet}.", do="enter a", then="day about"),
        line(1, "A {:small} boy was called {a=boy}.", do="enter a", then="day about"),
    ],
    "day": [
        line(4, "\nOne day, {a} went {p=place.to} with {a.his} friend {b=friend}.", do=MET),
        line(2, "\nOne day, {a} went {p=place.to} with {a.his} {:animal} {b=friend_pet}.", do=MET),
        line(3, "\nOne {:weather} day, {a} and {b=friend} went {p=place.to}.", do=MET),
        line(3, "\nOne day, {a} met {:animal.a} named {b=friend_pet} {p=place.at}.", do=MET),
        line(2, "\nOne day, {a} played {p=place.at} with {a.his} friend {b=friend}.", do=MET),
    ],
    "about": [
        line(6, "{a} had {:look.a} {o=toy}.", do="as x a; get x o", then="like middle"),
        line(2, "{a} took {:look.a} {o=toy} there.", do="as x a; get x o", then="like middle"),
        line(
            2, "{b} [brought*2|took] {:look.a} {o=toy}.", do="as x b; get x o", then="like middle"
        ),
    ],
    "like": [
        line(3, "They liked the {o}."),
        line(2, '"I like your {o}," said {y?not_x}.'),
        line(2, "The {o} was very {:fine}."),
        line(1, "They played with the {o}."),
    ],
}
