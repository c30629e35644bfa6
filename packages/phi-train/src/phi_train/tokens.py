"""Documents as one stream of token ids, with what it takes to measure bits a byte exactly."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_tokenizer import Tokenizer
from phi_train.documents import END_OF_TEXT
from phi_train.errors import DataError

__all__ = [
    "FEW_DOCUMENTS",
    "HELD_OUT_SHARE",
    "TokenStream",
    "cut_at_space",
    "encode_documents",
    "end_token_of",
    "is_digest_held_out",
    "is_held_out",
    "split_documents",
    "split_hash",
    "windows",
]

HELD_OUT_SHARE = 0.05  # of the documents, where no validation source is given
FEW_DOCUMENTS = 40  # below this a hash would split too unevenly
LONGEST_WORD = 100  # characters; a language without spaces is cut anywhere


@dataclass(frozen=True)
class TokenStream:
    """Every document followed by one end token, as one row of ids."""

    ids: NDArray[Any]  # [M], uint16 where every id fits, else uint32
    end_token: int
    n_documents: int
    text_bytes: int  # of the documents' UTF-8 text, end tokens not counted
    document_bytes: NDArray[Any] | None = None  # [D] the same for each document
    source_nats: NDArray[Any] | None = None  # [D] -log p of each, where the source knows it
    known_checksum: tuple[int, int] | None = None  # (ids, their CRC-32), told by prepared data
    document_ends: NDArray[Any] | None = None  # [D] where in ids each document ends, if known

    @property
    def contexts(self) -> NDArray[Any]:
        """What stands before each id [M]: the stream, shifted, with an end token in front."""
        return np.concatenate([np.array([self.end_token], self.ids.dtype), self.ids[:-1]])

    @property
    def checksum(self) -> int:
        """CRC-32 of the ids: two streams with another one differ."""
        if self.known_checksum is not None and self.known_checksum[0] == self.ids.size:
            return self.known_checksum[1]
        return zlib.crc32(np.ascontiguousarray(self.ids).data)

    def bits_per_byte(self, nats: float) -> float:
        """`nats`, the sum over the whole stream, in bits a byte of text."""
        return nats / (math.log(2) * self.text_bytes)


def encode_documents(
    documents: Iterable[str],
    tokenizer: Tokenizer,
    *,
    what: str = "the source",
    source_nats: Sequence[float] | None = None,
) -> TokenStream:
    """The stream of `documents`; `what` names their source in an error.

    source_nats: -log p of each document under the source itself, where that is known.

    Raises DataError when there is no document, or when the tokenizer has no end token.
    """
    end_token = end_token_of(tokenizer)
    sizes: list[int] = []

    def measured() -> Iterator[str]:
        for document in documents:
            sizes.append(len(document.encode()))
            yield document

    ids, _ = tokenizer.encode_batch_to_numpy(measured(), disallowed_special=(), append=end_token)
    if not sizes:
        raise DataError(f"{what} holds no text (white space does not count): give more of it")
    nats = None if source_nats is None else np.array(source_nats)
    return TokenStream(ids, end_token, len(sizes), sum(sizes), np.array(sizes), nats)


def end_token_of(tokenizer: Tokenizer) -> int:
    """The id that ends each document; DataError when the tokenizer has none."""
    end_token = tokenizer.special_tokens.get(END_OF_TEXT)
    if end_token is None:
        raise DataError(
            f"the tokenizer has no {END_OF_TEXT} token, which ends each document: "
            f"train one with --special '{END_OF_TEXT}'"
        )
    return end_token


def is_held_out(document: str, share: float = HELD_OUT_SHARE) -> bool:
    """Whether a document belongs to the validation part: decided by its text alone.

    The same text always falls on the same side, so nothing leaks and nothing ever moves.
    """
    digest = split_hash()
    digest.update(document.encode())
    return is_digest_held_out(digest, share)


def split_hash() -> hashlib.blake2b:
    """The hash that decides a document's side: to be fed its UTF-8 bytes, at once or in pieces."""
    return hashlib.blake2b(digest_size=8, person=b"phi-split")


def is_digest_held_out(digest: hashlib.blake2b, share: float = HELD_OUT_SHARE) -> bool:
    """is_held_out for a document that was fed to a split_hash."""
    return int.from_bytes(digest.digest(), "big") < share * 2**64


def split_documents(documents: Iterable[str]) -> tuple[list[str], list[str]]:
    """(training, validation) parts of a source that came without a validation source.

    By hash of the document; where there are only a few, the last twentieth of the text.
    """
    everything = list(documents)
    if len(everything) >= FEW_DOCUMENTS:
        train = [d for d in everything if not is_held_out(d)]
        valid = [d for d in everything if is_held_out(d)]
        if train and valid:
            return train, valid
    return _split_tail(everything)


def _split_tail(everything: list[str]) -> tuple[list[str], list[str]]:
    wanted = int(sum(map(len, everything)) * HELD_OUT_SHARE)
    valid: list[str] = []
    train = list(everything)
    while train and wanted > 0:
        last = train.pop()
        wanted -= len(last)
        if wanted < 0:  # a part of it is enough
            cut = cut_at_space(last, -wanted)
            train.append(last[:cut].rstrip())
            last = last[cut:].strip()
        valid.insert(0, last)
    return [d for d in train if d], [d for d in valid if d]


def cut_at_space(text: str, near: int) -> int:
    """A place a little before `near`, or there, where no word is cut; `near` if there is none."""
    start = max(0, near - LONGEST_WORD)
    return max(text.rfind(" ", start, near), text.rfind("\n", start, near)) + 1 or near


def windows(length: int, stream_length: int, batch_size: int) -> Iterator[tuple[int, int, int]]:
    """(start, rows, columns) of batches of consecutive windows that cover a stream once.

    Every window has `length` tokens, but for one shorter window at the end.
    """
    whole = stream_length // length
    for first in range(0, whole, batch_size):
        yield first * length, min(batch_size, whole - first), length
    if stream_length % length:
        yield whole * length, 1, stream_length % length
