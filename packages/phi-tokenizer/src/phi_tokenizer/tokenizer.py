"""The tokenizer that people use: training, files, encoding, decoding.

>>> tokenizer = Tokenizer.train(["low lower lowest"] * 9, vocab_size=260)
>>> tokenizer.decode(tokenizer.encode("slow"))
'slow'
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phi_tokenizer.bulk import BulkEncoder
from phi_tokenizer.counter import count_pieces
from phi_tokenizer.encoder import PieceEncoder, TextEncoder, utf8
from phi_tokenizer.errors import FormatError, TokenIdError, TrainingError
from phi_tokenizer.files import atomic_write_bytes
from phi_tokenizer.formats.hf import from_hf, to_hf
from phi_tokenizer.merge_table import MergeTable
from phi_tokenizer.special import END_OF_TEXT, SpecialTokens, check_special_names, ordinary_parts
from phi_tokenizer.splitter import Splitter
from phi_tokenizer.stream import StreamDecoder
from phi_tokenizer.trainer import train_merges
from phi_tokenizer.vocabulary import BYTE_ORDER, Vocabulary

__all__ = ["Tokenizer"]

Ids = npt.NDArray[Any]


class Tokenizer:
    """Byte-level BPE; made by `train`, `load` or `from_bytes`."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._tokens = vocabulary.tokens
        self._splitter = Splitter(vocabulary.pattern)
        merges = MergeTable(vocabulary)
        pieces = PieceEncoder(vocabulary, merges)
        gpt2 = self._splitter.name == "gpt2"
        self._short = TextEncoder(self._splitter.split, pieces, by_words=gpt2)
        self._bulk = BulkEncoder(pieces, merges, self.dtype) if gpt2 else None
        self._special = SpecialTokens(vocabulary.special)

    @classmethod
    def train(
        cls,
        texts: Iterable[str] | str,
        *,
        vocab_size: int,
        special_tokens: Sequence[str] = (),
        pattern: str = "gpt2",
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Tokenizer:
        """Learn a vocabulary of `vocab_size` = 256 bytes + merges + special tokens."""
        special = check_special_names(special_tokens)
        n_merges = vocab_size - 256 - len(special)
        if n_merges < 0:
            raise TrainingError(
                f"vocab_size {vocab_size} is too small: 256 bytes and {len(special)} special "
                f"tokens need at least {256 + len(special)}"
            )
        splitter = Splitter(pattern)
        counts = count_pieces(
            ordinary_parts([texts] if isinstance(texts, str) else texts, special), splitter
        )
        if not counts:
            raise TrainingError("there is no text to train on; give at least one character")
        report = (lambda done, total: progress("merging", done, total)) if progress else None
        merges = train_merges(
            b"".join(counts),
            np.array([len(piece) for piece in counts], np.int64),
            np.array(list(counts.values()), np.int64),
            n_merges,
            progress=report,
        )
        if len(merges) < n_merges:
            warnings.warn(
                f"the corpus holds only {len(merges)} merges, not {n_merges}: the vocabulary has "
                f"{256 + len(merges) + len(special)} tokens, not {vocab_size}",
                stacklevel=2,
            )
        tokens = [bytes([byte]) for byte in BYTE_ORDER]
        for a, b in merges:
            tokens.append(tokens[a] + tokens[b])
        ids = {name: len(tokens) + index for index, name in enumerate(special)}
        everything = [*tokens, *(name.encode() for name in special)]
        return cls(Vocabulary(everything, merges, ids, splitter.name))

    @classmethod
    def train_from_files(cls, paths: Iterable[str | os.PathLike[str]], **options: Any) -> Tokenizer:
        """`train` on the texts of files."""
        return cls.train((Path(path).read_text("utf-8") for path in paths), **options)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Read a `tokenizer.json`."""
        return cls.from_bytes(Path(path).read_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Tokenizer:
        """The tokenizer in the bytes of a `tokenizer.json`."""
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"not a tokenizer.json: {error}") from None
        return cls(from_hf(document))

    def to_bytes(self) -> bytes:
        """The content of a `tokenizer.json`."""
        return to_hf(self.vocabulary)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a `tokenizer.json`."""
        atomic_write_bytes(path, self.to_bytes())

    @property
    def n_vocab(self) -> int:
        """The number of ids."""
        return len(self._tokens)

    @property
    def special_tokens(self) -> dict[str, int]:
        """Name -> id."""
        return dict(self._special.ids)

    @property
    def special_tokens_set(self) -> set[str]:
        """The names of the special tokens."""
        return set(self._special.names)

    @property
    def eot_token(self) -> int:
        """The id of `<|endoftext|>`.

        Raises:
            TokenIdError: there is none.
        """
        return self.encode_single_token(END_OF_TEXT)

    @property
    def token_byte_lengths(self) -> npt.NDArray[np.int32]:
        """Bytes of each token, int32, shape (n_vocab,)."""
        return np.array([len(token or b"") for token in self._tokens], np.int32)

    def encode(
        self,
        text: str,
        *,
        allowed_special: Collection[str] | str = frozenset(),
        disallowed_special: Collection[str] | str = "all",
    ) -> list[int]:
        """Text to ids."""
        names = self._special.allowed(text, allowed_special, disallowed_special)
        out: list[int] = []
        for part in self._special.split(text, names):
            if isinstance(part, int):
                out.append(part)
            else:
                out += self.encode_ordinary(part)
        return out

    def encode_ordinary(self, text: str) -> list[int]:
        """Text to ids; special tokens in it are ordinary text."""
        if self._bulk is None or len(text) < 4096:
            return self._short.encode(text)
        ids: list[int] = self._bulk.encode([utf8(text)])[0].tolist()
        return ids

    def encode_batch(self, texts: Iterable[str], **options: Any) -> list[list[int]]:
        """`encode` for each text."""
        return [self.encode(text, **options) for text in texts]

    def encode_to_numpy(self, text: str, **options: Any) -> Ids:
        """`encode` as an array."""
        return np.array(self.encode(text, **options), self.dtype)

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16 where every id fits, else uint32."""
        return np.dtype(np.uint16 if self.n_vocab <= 65536 else np.uint32)

    def encode_single_token(self, text_or_bytes: str | bytes) -> int:
        """The id of one token, special ones included."""
        if isinstance(text_or_bytes, str):
            if text_or_bytes in self._special.ids:
                return self._special.ids[text_or_bytes]
            text_or_bytes = utf8(text_or_bytes)
        if text_or_bytes not in self.vocabulary.ids:
            raise TokenIdError(f"{text_or_bytes!r} is not one token of this vocabulary")
        return self.vocabulary.ids[text_or_bytes]

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of an id."""
        token = self._tokens[token_id] if 0 <= token_id < self.n_vocab else None
        if token is None:
            raise TokenIdError(
                f"token id {token_id} is not in the vocabulary (0 to {self.n_vocab - 1})"
            )
        return token

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Ids to bytes."""
        return b"".join(map(self.token_bytes, ids))

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Ids to text."""
        return self.decode_bytes(ids).decode("utf-8", errors)

    def decode_batch(self, batch: Iterable[Iterable[int]], errors: str = "replace") -> list[str]:
        """`decode` for each list of ids."""
        return [self.decode(ids, errors) for ids in batch]

    def stream_decoder(self) -> StreamDecoder:
        """For ids that come one at a time."""
        return StreamDecoder(self._tokens)

    def __repr__(self) -> str:
        return f"Tokenizer(n_vocab={self.n_vocab}, pattern={self._splitter.name!r})"
