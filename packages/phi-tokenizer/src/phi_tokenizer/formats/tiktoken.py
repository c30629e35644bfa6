"""tiktoken's files: a line for each token, its bytes in base64 and its rank.

The rank is the id and the order of merging at once; the merges follow from it: a token is made
of the two parts that the earlier tokens make of its bytes. Special tokens and the split pattern
are not in the file. The reader must be told them.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping

from phi_tokenizer.errors import FormatError
from phi_tokenizer.special import check_special_names
from phi_tokenizer.vocabulary import Vocabulary

__all__ = ["from_tiktoken", "to_tiktoken"]

_MAX_ID = 1 << 24
_MAX_BYTES = 1024  # a longer token would take too long to take apart


def to_tiktoken(vocabulary: Vocabulary) -> bytes:
    """The content of a `.tiktoken` file, without the special tokens.

    Raises:
        FormatError: in such a file the merges would be others, because ids and merges are not
            in the same order.
    """
    again = _vocabulary(vocabulary.ids, {}, "gpt2")
    if again.merges != list(vocabulary.merges):
        raise FormatError(
            "this vocabulary cannot be a .tiktoken file: its merges are not in the order of its "
            "ids; save a tokenizer.json instead"
        )
    ordered = sorted((index, token) for token, index in vocabulary.ids.items())
    return b"".join(base64.b64encode(token) + b" %d\n" % index for index, token in ordered)


def from_tiktoken(
    data: bytes, *, special_tokens: Mapping[str, int] | Iterable[str] = (), pattern: str = "gpt2"
) -> Vocabulary:
    """The vocabulary in a `.tiktoken` file.

    Args:
        data: the content.
        special_tokens: name -> id, or names that get the ids after the last one.
        pattern: the split pattern.

    Raises:
        FormatError: a line is not a token and a rank.
    """
    ids: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            text, rank = line.split()
            token, index = base64.b64decode(text, validate=True), int(rank)
        except (ValueError, binascii.Error):
            raise FormatError(f"line {number} is not a token in base64 and its rank") from None
        if token in ids:
            raise FormatError(f"line {number}: the token {token[:40]!r} is there twice")
        if not 0 <= index < _MAX_ID:
            raise FormatError(f"line {number}: {index} is no id")
        ids[token] = index
    if len(set(ids.values())) != len(ids):
        raise FormatError("two tokens have the same rank")
    if max(ids.values(), default=0) >= 2 * len(ids) + 1024:
        raise FormatError(f"the largest rank is {max(ids.values())} of only {len(ids)} tokens")
    if isinstance(special_tokens, Mapping):
        special = dict(special_tokens)
    else:
        first = max(ids.values(), default=-1) + 1
        special = {n: first + i for i, n in enumerate(check_special_names(special_tokens))}
    return _vocabulary(ids, special, pattern)


def _vocabulary(ids: dict[bytes, int], special: dict[str, int], pattern: str) -> Vocabulary:
    check_special_names(special)
    size = max([*ids.values(), *special.values()], default=-1) + 1
    tokens: list[bytes | None] = [None] * size
    for token, index in [*ids.items(), *((name.encode(), i) for name, i in special.items())]:
        if index < 0 or tokens[index] is not None:
            raise FormatError(f"the id {index} of {token[:40]!r} is taken or negative")
        tokens[index] = token
    merges: list[tuple[int, int]] = []
    whole = False
    for token in sorted(ids, key=ids.__getitem__):
        if len(token) > _MAX_BYTES:
            raise FormatError(f"a token of {len(token)} bytes; more than {_MAX_BYTES} is too long")
        if len(token) > 1:
            parts = _split_in_two(token, ids)
            if parts is None:
                whole = True  # no merge makes it; it is found as a whole piece only
            else:
                merges.append((ids[parts[0]], ids[parts[1]]))
    return Vocabulary(tokens, merges, special, pattern, whole_pieces_first=whole)


def _split_in_two(token: bytes, ids: dict[bytes, int]) -> tuple[bytes, bytes] | None:
    """What merging with the earlier tokens leaves of a token, if that is two parts."""
    rank = ids[token]
    parts = [token[index : index + 1] for index in range(len(token))]
    while len(parts) > 2:
        best, place = rank, -1
        for index in range(len(parts) - 1):
            found = ids.get(parts[index] + parts[index + 1], rank)
            if found < best:
                best, place = found, index
        if place < 0:
            return None
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return (parts[0], parts[1]) if all(part in ids for part in parts) else None
