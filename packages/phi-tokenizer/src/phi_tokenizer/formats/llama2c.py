"""llama2.c's `tokenizer.bin`: for showing the text that `run.c` generates.

int32 the longest token's bytes; then for each token float32 a score, int32 its bytes, the bytes.
Little-endian. The score is minus the rank of the merge, so that the earliest merge scores best.

`run.c` decodes such a file as the project does. Its encoding of a prompt differs: it knows no
split pattern, puts a space in front, and takes ids 1 to 258 for its own purposes.
"""

import struct

from phi_tokenizer.vocabulary import Vocabulary

__all__ = ["to_llama2c"]


def to_llama2c(vocabulary: Vocabulary) -> bytes:
    """The content of a `tokenizer.bin`, with as many tokens as there are ids."""
    ranks = {index: rank for rank, index in reversed(list(enumerate(vocabulary.merged)))}
    tokens = [token or b"" for token in vocabulary.tokens]
    out = [struct.pack("<i", max(map(len, tokens)))]
    for index, token in enumerate(tokens):
        score = -float(ranks[index] + 1) if index in ranks else 0.0
        out += (struct.pack("<fi", score, len(token)), token)
    return b"".join(out)
