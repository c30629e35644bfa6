"""Counting the different pieces of a corpus: what the trainer needs to know of it.

Only the pieces and their counts are kept, so that memory is set by how many different pieces
there are, not by the size of the corpus.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from phi_tokenizer.encoder import utf8
from phi_tokenizer.piece_table import PieceTable
from phi_tokenizer.pieces import chunks, find_pieces
from phi_tokenizer.splitter import Splitter

__all__ = ["count_pieces"]

CHUNK_BYTES = 1 << 18


def count_pieces(
    parts: Iterable[str], splitter: Splitter
) -> tuple[bytes, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Each different piece and how often it occurs.

    Args:
        parts: texts, without special tokens.
        splitter: cuts a text into pieces.

    Returns:
        The bytes of all different pieces, one after the other; the length of each, int64; how
        often each occurs, int64.

    Raises:
        EncodingError: a text is not valid Unicode.
    """
    if splitter.name == "gpt2":
        table = PieceTable()
        for chunk in chunks(map(utf8, parts), size=CHUNK_BYTES):
            slots, _, _ = table.slots(chunk, find_pieces(chunk))
            np.add.at(table.values, slots, 1)
        return table.pieces()
    counter: Counter[str] = Counter()
    for part in parts:
        counter.update(splitter.split(part))
    pieces = list(map(utf8, counter))
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    return b"".join(pieces), lengths, np.array(list(counter.values()), np.int64)
