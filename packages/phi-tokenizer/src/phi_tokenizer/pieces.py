"""The pieces of the GPT-2 pattern, found by comparing whole arrays of bytes.

    >>> [int(start) for start in find_pieces(b"It's 2 cats\\xff")]
    [0, 2, 4, 6, 11]

A regular expression walks from piece to piece. But where a piece of the GPT-2 pattern starts
can be told from the few characters around that place. With L a letter, N a number, S white
space, O anything else:

1. after a character of another class a new piece starts, except that a blank (U+0020) is taken
   in by the L, N or O after it;
2. white space after white space starts a piece only where it is the last of its run and
   something follows: `\\s+(?!\\S)` leaves one for the next piece;
3. an apostrophe that starts a piece takes in s, d, m, t, ll, ve or re, and the next piece
   starts right after.

The text is UTF-8 in which the parts (documents, or what special tokens leave of one) are ended
by the byte 0xFF, or by 0xFE where a long part was cut; neither occurs in UTF-8. Each is a piece.
"""

import re
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from phi_tokenizer.unicode_table import LETTER, NUMBER, OTHER, SPACE, class_table

__all__ = ["CUT", "END", "PADDING", "chunks", "find_pieces"]

END, CUT = b"\xff", b"\xfe"
PADDING = 32
"""Zero bytes that the arrays of a chunk have after its text."""

# Codes in an order that makes the two tests below one comparison each.
_L, _N, _O, _END, _S, _BLANK = range(6)
_CODES = np.array([_O, _L, _N, _S], np.uint8)  # by class: OTHER, LETTER, NUMBER, SPACE
assert (OTHER, LETTER, NUMBER, SPACE) == (0, 1, 2, 3)


def _byte_codes() -> bytes:
    codes = bytearray([_O] * 256)
    for first, last, code in (
        (0x30, 0x39, _N), (0x41, 0x5A, _L), (0x61, 0x7A, _L), (0x09, 0x0D, _S),
        (0x20, 0x20, _BLANK), (0xFE, 0xFF, _END),
    ):  # fmt: skip
        codes[first : last + 1] = bytes([code]) * (last - first + 1)
    return bytes(codes)


_BYTE_CODES = _byte_codes()


def find_pieces(text: bytes) -> npt.NDArray[np.int64]:
    """The offsets at which pieces start, int64, ascending.

    Args:
        text: UTF-8 with parts ended by `END` or `CUT`; the last byte must be one of them.
    """
    size = len(text)
    data = np.frombuffer(text, np.uint8)
    code = np.frombuffer(bytearray(text.translate(_BYTE_CODES)), np.uint8)
    wide_spaces = _decode(data, code) if size and data.max() >= 0x80 else None

    start = np.empty(size, np.bool_)
    start[0] = True
    left, right = code[:-1], code[1:]
    np.not_equal(left, right, out=start[1:])  # rule 1
    start[1:] &= left != _BLANK

    space = code >= _S  # rule 2
    inside = space[1:] & space[:-1]
    if inside.any():
        start[1:] &= ~inside
        start[1:-1] |= inside[:-1] & (code[2:] < _END)
        if wide_spaces is not None and wide_spaces.size:
            _fix_wide_spaces(data, code, start, wide_spaces)

    ends = np.flatnonzero(code == _END)
    start[ends] = True
    start[ends[:-1] + 1] = True

    _contractions(data, start)  # rule 3
    return np.flatnonzero(start)


def _contractions(data: npt.NDArray[np.uint8], start: npt.NDArray[np.bool_]) -> None:
    """Join `'s` and its like, and start a piece after them."""
    at = np.flatnonzero(data == 0x27)
    at = at[start[at]]
    if not at.size:
        return
    one = data[at + 1]  # the last byte is an end, so there is always a next one
    short = (one == 0x73) | (one == 0x64) | (one == 0x6D) | (one == 0x74)
    two = data[np.minimum(at + 2, data.size - 1)]
    long = (
        ((one == 0x6C) & (two == 0x6C))
        | ((one == 0x76) & (two == 0x65))
        | ((one == 0x72) & (two == 0x65))
    )
    start[at[short | long] + 1] = False
    start[at[short] + 2] = True
    start[at[long] + 3] = True


def _decode(data: npt.NDArray[np.uint8], code: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Set the codes of the bytes of all non-ASCII characters.

    Returns:
        The offsets of white space that takes more than one byte.
    """
    lead = np.flatnonzero((data >= 0xC0) & (data < 0xFE))
    if not lead.size:
        return lead
    first = data[lead].astype(np.int32)
    point = data[lead + 1].astype(np.int32) & 0x3F
    point |= (first & 0x1F) << 6
    three = np.flatnonzero(first >= 0xE0)
    four = np.flatnonzero(first >= 0xF0)
    for at, offset in ((three, 2), (four, 3)):
        point[at] = (point[at] << 6) | (data[lead[at] + offset] & 0x3F)
    point &= 0x1FFFFF  # without the bit that marks the length 4
    values = _CODES[class_table()[point]]
    code[lead] = values
    code[lead + 1] = values
    code[lead[three] + 2] = values[three]
    code[lead[four] + 3] = values[four]
    wide: npt.NDArray[np.int64] = lead[values == _S]
    return wide


def _fix_wide_spaces(
    data: npt.NDArray[np.uint8],
    code: npt.NDArray[np.uint8],
    start: npt.NDArray[np.bool_],
    at: npt.NDArray[np.int64],
) -> None:
    """Rule 2 for white space of two or three bytes, where the byte is not the character."""
    length = np.where(data[at] >= 0xE0, 3, 2)
    before = np.where(at > 0, code[at - 1], _END)
    start[at] = (before < _S) | (code[at + length] < _END)
    start[at + 1] = False
    start[(at + 2)[length == 3]] = False


# A character that is not white space, then one blank or newline: a piece starts there whatever
# comes before or after, so that a long part may be cut.
_SAFE_CUT = re.compile(
    rb"(?:[!-~]|[\xc3-\xdf][\x80-\xbf]|[\xe3-\xef][\x81-\xbf][\x80-\xbf])(?=[ \n])"
)


def chunks(parts: Iterable[bytes], *, size: int) -> Iterator[bytes]:
    """Join parts, and cut long ones where it changes nothing, into texts for `find_pieces`.

    Args:
        parts: UTF-8 texts; each is followed by `END` in what comes out.
        size: bytes in a chunk, about; more only where a part cannot be cut.
    """
    waiting: list[bytes] = []
    waiting_size = 0
    for part in parts:
        begin = 0
        while len(part) - begin > size and (cut := _SAFE_CUT.search(part, begin + size)):
            if waiting:
                yield b"".join(waiting)
                waiting, waiting_size = [], 0
            yield part[begin : cut.end()] + CUT
            begin = cut.end()
        waiting += (part[begin:] if begin else part, END)
        waiting_size += len(part) - begin + 1
        if waiting_size >= size:
            yield b"".join(waiting)
            waiting, waiting_size = [], 0
    if waiting:
        yield b"".join(waiting)
