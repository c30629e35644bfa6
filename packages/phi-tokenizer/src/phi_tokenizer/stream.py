"""Decoding ids one at a time without ever showing half a character.

>>> decoder = StreamDecoder([b"\\xc3", b"\\xa9", b"!"])
>>> [decoder.feed(0), decoder.feed(1), decoder.feed(2), decoder.flush()]
['', 'é', '!', '']
"""

import codecs
from collections.abc import Sequence

from phi_tokenizer.errors import TokenIdError

__all__ = ["StreamDecoder"]


class StreamDecoder:
    """Feed it ids; it gives the text that is certain by then.

    Bytes that can still become a character wait for the next id; bytes that cannot become one
    turn into U+FFFD. All texts joined, `flush()` included, equal `Tokenizer.decode` of all ids.
    """

    def __init__(self, tokens: Sequence[bytes | None]) -> None:
        self._tokens = tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_id: int) -> str:
        """The text that this id completes, possibly empty.

        Raises:
            TokenIdError: the vocabulary has no such id; what was fed before is kept.
        """
        token = self._tokens[token_id] if 0 <= token_id < len(self._tokens) else None
        if token is None:
            raise TokenIdError(
                f"token id {token_id} is not in the vocabulary (0 to {len(self._tokens) - 1})"
            )
        return self._decoder.decode(token)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for an unfinished character, else nothing.

        The decoder starts afresh afterwards.
        """
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text
