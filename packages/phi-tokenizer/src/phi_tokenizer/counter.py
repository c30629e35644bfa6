"""Counting the different pieces of a corpus: what the trainer needs to know of it.

Only the pieces and their counts are kept, so that memory is set by how many different pieces
there are, not by the size of the corpus.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from phi_tokenizer.encoder import utf8
from phi_tokenizer.piece_table import PieceTable
from phi_tokenizer.pieces import CUT, END, chunks, find_pieces
from phi_tokenizer.splitter import Splitter

__all__ = ["count_pieces"]

CHUNK_BYTES = 1 << 17


def count_pieces(parts: Iterable[str], splitter: Splitter) -> dict[bytes, int]:
    """Each different piece and how often it occurs.

    Args:
        parts: texts, without special tokens.
        splitter: cuts a text into pieces.
    """
    if splitter.name != "gpt2":
        counter: Counter[str] = Counter()
        for part in parts:
            counter.update(splitter.split(part))
        return {utf8(piece): count for piece, count in counter.items()}
    table = PieceTable()
    for chunk in chunks(map(utf8, parts), size=CHUNK_BYTES):
        slots, _, _ = table.slots(chunk, find_pieces(chunk))
        np.add.at(table.values, slots, 1)
    return {piece: count for piece, count in table.pieces() if piece not in (END, CUT)}
