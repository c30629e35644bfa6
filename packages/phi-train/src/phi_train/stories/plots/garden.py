"""Making something grow: `a` has a seed, they wait together."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES", "OPENINGS"]


OPENINGS = [
    line(
        2,
        "\n{a} found {:look.a} seed and put it in the ground.",
        then="garden_water garden_grown end",
    ),
    line(
        1,
        "\nA {:job} gave {:look.a} seed to {a}, and {a.he} planted it.",
        then="garden_wait garden_grown end",
    ),
]

NODES = {
    "garden_water": [
        line(3, "Every day, {a} gave it water."),
        line(2, "{b} helped {a.him} to water it."),
        line(1, "{a} gave it water with {:tool.a}."),
    ],
    "garden_wait": [
        line(3, "They waited and waited."),
        line(2, '"When will it grow?" asked {b}.'),
        line(1, "The days were {:weather} and {:weather}."),
    ],
    "garden_grown": [
        line(3, "One morning, there was {:look.a} {:plant}!"),
        line(2, "At last, {:look.a} {:plant} grew there."),
    ],
}
