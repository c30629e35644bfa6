"""Helping: an animal is stuck, `x` gets it out."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES", "OPENINGS"]


OPENINGS = [
    line(
        2,
        "\nThen they saw {:small.a} {k=young} stuck in {:trap}.",
        then="rescue_call rescue_way end",
    ),
    line(
        2,
        "\nSuddenly, they heard {k=young.a} cry for help from {:trap}.",
        then="rescue_way rescue_thanks end",
    ),
]

NODES = {
    "rescue_call": [
        line(3, '"Help me!" [said*3|cried|shouted] the {k}.'),
        line(2, '"Can you help me?" asked the {k}.'),
        line(1, '"I am stuck," said the {k}.'),
        line(2, "It was very {:sad}."),
    ],
    "rescue_way": [
        line(3, "{x?who} got {:tool.a} and pulled it out."),
        line(1, "{x?owner} used the {o?held_x} to help it.", when="things"),
        line(2, "{x?who} was [brave*2|kind] and helped it get out."),
        line(1, "{x?who} asked {:job.a} to help, and soon it was free."),
    ],
    "rescue_thanks": [
        line(3, '"Thank you, {x}!" said the {k}.'),
        line(2, "It was so {:glad}."),
        line(1, "It said thank you and gave {:food.a} to {x}."),
    ],
}
