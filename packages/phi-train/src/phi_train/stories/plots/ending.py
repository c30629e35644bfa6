"""Thanks and endings, shared by the plots. The very end is a choice as well."""

from __future__ import annotations

from phi_train.stories.template import line

__all__ = ["NODES"]


NODES = {
    "thanks": [  # y thanks x
        line(3, '"Thank you, {x}!" said {y}.'),
        line(2, "{y} was very {g:glad}.", do="feel y g"),
        line(2, "{y} [smiled*3|laughed|clapped|jumped for joy]."),
    ],
    "thanks_yx": [  # x thanks y
        line(3, '"Thank you, {y}!" said {x}.'),
        line(2, "{x} was very {g:glad}.", do="feel x g"),
        line(2, "{x} [smiled*3|laughed|clapped|danced]."),
    ],
    "thanks_a": [
        line(2, '{a} said, "Thank you!"'),
        line(2, "{a} was very {g:glad}.", do="feel a g"),
    ],
    "end": [
        line(3, "\nThey were both {:glad}.", when="pair", then="last"),
        line(3, "\nThey were all {:glad}.", when="many", then="last"),
        line(3, "\n{a} and {b} {:game} {:time}.", then="last"),
        line(2, "\nThey {:game} {:time}.", then="last"),
        line(2, "\nThen they went home and {:game}.", then="last"),
        line(1, "\nThey stayed there {:time}.", then="last"),
        line(0.2, "\nThey stayed {p.at} {:time}.", then="last"),
        line(2, "\n{a} was {g:glad} to have a friend like {b}.", do="feel a g", then="last"),
    ],
    "last": [
        line(9, "{end}"),
        line(2, "{a} and {b} were best friends.", then="stop"),
        line(2, "It was [a good*2|the best|a great] day.", then="stop"),
        line(1, "The end.", then="stop"),
    ],
    "happy": [  # for plots that have a moral
        line(3, "\nThey were both {:glad}.", when="pair", then="moral"),
        line(3, "\nThey were all {:glad}.", when="many", then="moral"),
        line(2, "\nThen they {:game} {:time}.", then="moral"),
        line(2, "\n{a} and {b} were friends again.", then="moral"),
        line(0.3, "\n{a} and {b} {:game} {:time}.", then="moral"),
        line(0.3, "\n{a} was {g:glad} to have a friend like {b}.", do="feel a g", then="moral"),
    ],
    "moral": [
        line(7, "{end}"),
        line(3, "They learned to {:virtue}.", then="stop"),
        line(2, "From then on, {a} tried to {:virtue}.", then="stop"),
        line(2, "It is [good*2|always good] to {:virtue}.", then="stop"),
        line(0.5, "{a} and {b} were best friends.", then="stop"),
        line(0.5, "It was [a good*2|the best|a great] day.", then="stop"),
        line(0.5, "The end.", then="stop"),
    ],
    "stop": [line(1, "{end}")],
}
