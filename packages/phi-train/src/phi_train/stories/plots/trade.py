"""A trade: `x` has `o`, `y` has `q`, and each may like the other's better."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES", "OPENINGS"]

OPENINGS = [
    line(
        2,
        "\n{y?not_owner} had {:look.a} {q=present}, and {x?owner} liked it.",
        when="one_owner",
        do="get y q",
        then="trade_ask end",
    ),
    line(
        8,
        "\n{x?owner} looked at {y?owner_not_x} and liked the {q?held_y}.",
        when="two_owners",
        then="trade_ask end",
    ),
]

NODES = {
    "trade_ask": [
        line(
            3,
            '"Can I have your {q} for my {o?held_x}?" asked {x}.',
            then="trade_answer",
        ),
        line(
            2,
            '"I will give you my {o?held_x} for your {q}," said {x}.',
            then="trade_answer",
        ),
        line(1, '"I like your {q} more than my {o?held_x}," said {x}.', then="trade_answer"),
    ],
    "trade_answer": [
        line(3, '"Yes," said {y}. "Let us trade."', then="trade_swap"),
        line(2, '"Yes, I like your {o}," said {y}.', then="trade_swap"),
        line(1, '"No," said {y}. "I want to keep my {q}."', then="trade_no"),
    ],
    "trade_swap": [
        line(
            3,
            "So {x} gave the {o} to {y}, and {y} gave the {q} to {x}.",
            do="give x y o; give y x q",
        ),
        line(2, "Now {x} had the {q} and {y} had the {o}.", do="give x y o; give y x q"),
    ],
    "trade_no": [
        line(2, '"Then we can play with both," said {x}.'),
        line(2, "{x} was {g:sad}, but {y} let {x.him} play with it.", do="feel x g"),
    ],
}
