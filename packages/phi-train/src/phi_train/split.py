"""Which side a document goes to, told piece by piece: what `split_documents` does, in a stream.

A side is "train" or "valid". By its hash a document's side follows from its text alone; where
there are too few documents for that, the last twentieth of the text is held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from phi_train.ranges import Piece
from phi_train.tokens import HELD_OUT_SHARE, cut_at_space, is_held_out

__all__ = ["ByHash", "OneSide", "Side", "Split", "Tail", "tail_of"]

Side = Literal["train", "valid"]
Divided = list[tuple[Side, str, bool]]
"""(side, text, whether the document ends there)"""


class Split(Protocol):
    """A rule."""

    def divide(self, piece: Piece) -> Divided:
        """Where a piece goes; one that is cut in two goes to both sides."""


@dataclass(frozen=True)
class OneSide:
    """All documents on one side: the other has a source of its own."""

    side: Side

    def divide(self, piece: Piece) -> Divided:
        """One side."""
        return [(self.side, piece.text, piece.closes)]


@dataclass(frozen=True)
class ByHash:
    """The same text always on the same side, whatever else there is."""

    def divide(self, piece: Piece) -> Divided:
        """The side of the whole document."""
        held_out = is_held_out(piece.text) if piece.held_out is None else piece.held_out
        return [("valid" if held_out else "train", piece.text, piece.closes)]


@dataclass(frozen=True)
class Tail:
    """Documents before number `document` to train on, those after it held out.

    cut: near which character that document is cut, between words; 0: it is held out whole.
    """

    document: int
    cut: int

    def divide(self, piece: Piece) -> Divided:
        """By the document's number, and in one document by the place in it."""
        if piece.document != self.document or not self.cut:
            side: Side = "train" if piece.document < self.document else "valid"
            return [(side, piece.text, piece.closes)]
        near = self.cut - piece.character
        if near <= 0:
            return [("valid", piece.text, piece.closes)]
        if near > len(piece.text):
            return [("train", piece.text, piece.closes)]
        cut = cut_at_space(piece.text, near)
        return [
            ("train", piece.text[:cut].rstrip(), True),
            ("valid", piece.text[cut:].lstrip(), piece.closes),
        ]


def tail_of(lengths: Sequence[int]) -> Tail:
    """The rule that holds out the last twentieth of documents of these lengths, in characters."""
    wanted = int(sum(lengths) * HELD_OUT_SHARE)
    document = len(lengths)
    while document and wanted > 0:
        document -= 1
        wanted -= lengths[document]
    return Tail(document, max(0, -wanted))
