"""What can go wrong with a story.

StoryError(ValueError)
├── NotAStory        the text is not in the grammar (has .position and .expected)
└── GrammarError     the grammar itself is wrong (an unknown word class, two lines that clash, ..)
"""

from __future__ import annotations

__all__ = ["GrammarError", "NotAStory", "StoryError"]


class StoryError(ValueError):
    """Base of all errors of this package."""


class GrammarError(StoryError):
    """The data of a grammar contradicts itself; the message names the node and the line."""


class NotAStory(StoryError):
    """A text that the grammar cannot have written.

    Attributes:
        position: index of the character (not byte) at which every possible line had failed.
        expected: what could have stood there, a few readable pieces.
    """

    def __init__(self, text: str, position: int, expected: list[str]) -> None:
        self.position = position
        self.expected = expected
        before, after = text[max(0, position - 30) : position], text[position : position + 30]
        some = ", ".join(expected[:6]) + (", .." if len(expected) > 6 else "")
        super().__init__(
            f"not a story: at character {position}, after {before!r}, "
            f"found {after or 'the end of the text'!r}, expected {some}"
        )
