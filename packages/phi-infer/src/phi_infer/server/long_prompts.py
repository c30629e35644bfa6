"""A batch that reads a long prompt in parts, so that the other texts grow in between.

batch = LongPromptBatch(weights, slots)
slot = batch.add(ids[:512])
batch.extend(slot, ids[512:])         # logits[slot] are then those after the last id
"""

from __future__ import annotations

from collections.abc import Sequence

from phi_infer.batch import PIECE, Batch

__all__ = ["LongPromptBatch"]


class LongPromptBatch(Batch):
    """A Batch whose texts may be given more than a token at once."""

    def extend(self, slot: int, ids: Sequence[int]) -> None:
        """Reads ids after those that the text in the slot has already."""
        for first in range(0, len(ids), PIECE):
            piece = ids[first : first + PIECE]
            self._piece[: len(piece)] = piece
            self._do("read", slot, len(piece))
