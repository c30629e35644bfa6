"""The tokenizer that people use: training, files, encoding, decoding.

    >>> tokenizer = Tokenizer.train(["low lower lowest"] * 9, vocab_size=260)
    >>> tokenizer.decode(tokenizer.encode("slow"))
    'slow'

The methods that tiktoken's `Encoding` has too behave like them. It adds no token of its own to
a text, normalizes nothing, and gives every text back as it was.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phi_tokenizer import formats
from phi_tokenizer.bulk import BulkEncoder
from phi_tokenizer.corpus import corpus_files, read_parts
from phi_tokenizer.counter import count_pieces
from phi_tokenizer.decoder import Decoder
from phi_tokenizer.encoder import PieceEncoder, TextEncoder, utf8
from phi_tokenizer.errors import EncodingError, TokenIdError, TrainingError
from phi_tokenizer.formats.hf import from_hf, to_hf
from phi_tokenizer.merge_table import MergeTable
from phi_tokenizer.special import (
    END_OF_TEXT,
    SpecialTokens,
    check_special_names,
    ordinary_parts,
)
from phi_tokenizer.splitter import Splitter
from phi_tokenizer.stream import StreamDecoder
from phi_tokenizer.trainer import train_merges
from phi_tokenizer.vocabulary import BYTE_ORDER, Vocabulary

__all__ = ["Progress", "Tokenizer"]

Ids = npt.NDArray[Any]
Progress = Callable[[str, int, int], None]
"""Called with (phase, done, total): "reading", bytes or texts read and their total, 0 where it
is not known; then "merging", merges learned and wanted."""

_LONG_TEXT = 4096  # from so many characters on, whole arrays are faster than words
MAX_VOCAB = 65536


class Tokenizer:
    """Byte-level BPE. Made by `train`, `train_from_files`, `load` or `from_bytes`.

    Args:
        vocabulary: the tokens, merges, special tokens and split pattern.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._special = SpecialTokens(vocabulary.special)
        self._splitter = Splitter(vocabulary.pattern)
        self._decoder = Decoder(vocabulary.tokens)
        merges = MergeTable(vocabulary)
        pieces = PieceEncoder(vocabulary, merges)
        gpt2 = self._splitter.name == "gpt2"
        self._text = TextEncoder(self._splitter.split, pieces, by_words=gpt2)
        self._bulk = BulkEncoder(pieces, merges, self.dtype) if gpt2 else None

    def __repr__(self) -> str:
        return f"Tokenizer(n_vocab={self.n_vocab}, pattern={self._splitter.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.vocabulary == other.vocabulary

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer, (self.vocabulary,)

    # Training

    @classmethod
    def train(
        cls,
        texts: Iterable[str] | str,
        *,
        vocab_size: int,
        special_tokens: Sequence[str] = (),
        pattern: str = "gpt2",
        progress: Progress | None = None,
    ) -> Tokenizer:
        """Learn a vocabulary.

        Args:
            texts: documents, taken one at a time; or one document.
            vocab_size: 256 bytes + merges + special tokens; at most 65,536. When the texts hold
                no more pairs to merge, the vocabulary is smaller, and a warning says so.
            special_tokens: names; they get the last ids, in this order, and are left out of
                the texts wherever they occur there.
            pattern: `gpt2`, `cl100k`, `none`, or a regular expression (see `Splitter`).
            progress: called now and then; see `Progress`.

        Raises:
            TrainingError: the vocabulary is too small or too large, or there is no text.
            EncodingError: a text is not valid Unicode.

        References:
            Sennrich, Haddow and Birch (2016), arXiv:1508.07909.
        """
        special, splitter = _check_training(vocab_size, special_tokens, pattern)
        documents = [texts] if isinstance(texts, str) else texts
        parts = ordinary_parts(_counted(documents, progress), special)
        return cls._from_parts(parts, vocab_size, special, splitter, progress)

    @classmethod
    def train_from_files(
        cls,
        paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str],
        *,
        vocab_size: int,
        special_tokens: Sequence[str] = (),
        pattern: str = "gpt2",
        progress: Progress | None = None,
    ) -> Tokenizer:
        """`train` on files, read a few megabytes at a time.

        Args:
            paths: UTF-8 text files, `.jsonl` files (one object a line, key `text`), and folders
                of `.txt` and `.jsonl` files. Documents in them end at `<|endoftext|>` and at
                the special tokens.
            vocab_size: as in `train`.
            special_tokens: as in `train`.
            pattern: as in `train`. With another pattern than `gpt2` a whole document is in
                memory at a time.
            progress: as in `train`.

        Raises:
            OSError: a file cannot be read.
            EncodingError: a file is not UTF-8.
            TrainingError: as in `train`.
        """
        special, splitter = _check_training(vocab_size, special_tokens, pattern)
        files = corpus_files(paths)
        total = sum(path.stat().st_size for path in files)
        done = 0

        def advance(size: int) -> None:
            nonlocal done
            done += size
            if progress is not None:
                progress("reading", done, total)

        separators = {*special, END_OF_TEXT}
        may_cut = splitter.name == "gpt2"
        parts = (
            part
            for path in files
            for part in read_parts(path, separators, may_cut=may_cut, progress=advance)
        )
        return cls._from_parts(parts, vocab_size, special, splitter, progress)

    @classmethod
    def _from_parts(
        cls,
        parts: Iterable[str],
        vocab_size: int,
        special: tuple[str, ...],
        splitter: Splitter,
        progress: Progress | None,
    ) -> Tokenizer:
        data, lengths, counts = count_pieces(parts, splitter)
        if not lengths.size:
            raise TrainingError("there is no text to train on; give at least one character")
        wanted = vocab_size - 256 - len(special)
        report = None
        if progress is not None:
            report = lambda done, total: progress("merging", done, total)  # noqa: E731
        merges = train_merges(data, lengths, counts, wanted, progress=report)
        tokens = [bytes([byte]) for byte in BYTE_ORDER]
        for a, b in merges:
            tokens.append(tokens[a] + tokens[b])
        ids = {name: len(tokens) + index for index, name in enumerate(special)}
        tokens += [name.encode() for name in special]
        if len(merges) < wanted:
            warnings.warn(
                f"the texts hold only {len(merges)} merges, not {wanted}: the vocabulary has "
                f"{len(tokens)} tokens instead of {vocab_size}; use more text or a smaller "
                "vocab_size",
                stacklevel=3,
            )
        return cls(Vocabulary(tokens, merges, ids, splitter.name))

    # Files

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        special_tokens: Mapping[str, int] | Iterable[str] | None = None,
        pattern: str | None = None,
    ) -> Tokenizer:
        """Read a tokenizer; the format is told by the content.

        Args:
            path: a `tokenizer.json`; a `.tiktoken` file; a `vocab.json` or `merges.txt` beside
                the other; or a folder with one of these.
            special_tokens: for a `.tiktoken` file, which holds none: name -> id, or names that
                get the ids after the last one.
            pattern: for formats that hold none; GPT-2's if None.

        Raises:
            FormatError: the file is broken, or of a kind that is not known; the message names it.
            OSError: it cannot be read.
        """
        return cls(formats.read(path, special_tokens=special_tokens, pattern=pattern))

    def save(self, path: str | os.PathLike[str], *, to: formats.Format = "hf") -> list[Path]:
        """Write a file, all of it or nothing.

        Args:
            path: the file; for `gpt2` a folder.
            to: `hf` (tokenizer.json), `gpt2` (vocab.json and merges.txt), `tiktoken` (without
                the special tokens) or `llama2c` (tokenizer.bin; cannot be read again).

        Returns:
            The files written.

        Raises:
            FormatError: the format cannot hold this vocabulary.
            OSError: the file cannot be written.
        """
        return formats.write(self.vocabulary, path, to)

    @classmethod
    def from_bytes(cls, data: bytes) -> Tokenizer:
        """The tokenizer in the content of a `tokenizer.json`.

        Raises:
            FormatError: it is broken.
        """
        return cls(from_hf(formats.parse_json(data, "tokenizer.json")))

    def to_bytes(self) -> bytes:
        """The content of a `tokenizer.json`: the same bytes for the same tokenizer."""
        return to_hf(self.vocabulary)

    # The vocabulary

    @property
    def n_vocab(self) -> int:
        """The number of ids: the largest one plus 1."""
        return len(self.vocabulary.tokens)

    @property
    def pattern(self) -> str:
        """The name of the split pattern, or its regular expression."""
        return self._splitter.name

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of ids in arrays: uint16 where every id fits, else uint32."""
        return np.dtype(np.uint16 if self.n_vocab <= MAX_VOCAB else np.uint32)

    @property
    def special_tokens(self) -> dict[str, int]:
        """The special tokens: name -> id."""
        return dict(self._special.ids)

    @property
    def special_tokens_set(self) -> set[str]:
        """The names of the special tokens."""
        return set(self._special.names)

    @property
    def eot_token(self) -> int:
        """The id of `<|endoftext|>`.

        Raises:
            TokenIdError: the vocabulary has none (a KeyError too, as with tiktoken).
        """
        if END_OF_TEXT not in self._special.ids:
            raise TokenIdError(
                f"this vocabulary has no {END_OF_TEXT}; train it with "
                f"special_tokens=[{END_OF_TEXT!r}]"
            )
        return self._special.ids[END_OF_TEXT]

    @property
    def token_byte_lengths(self) -> npt.NDArray[np.int32]:
        """How many bytes each token stands for, int32, shape (n_vocab,).

        A special token counts the bytes of its name. For exact bits per byte, leave out the
        special tokens that are not part of the documents' text.
        """
        return self._decoder.lengths.copy()

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token; a special token's name in UTF-8.

        Raises:
            TokenIdError: there is no such id.
        """
        return self._decoder.token(token_id)

    def token_byte_values(self) -> list[bytes]:
        """The bytes of all tokens that are not special, sorted."""
        return sorted(self.vocabulary.ids)

    def encode_single_token(self, text_or_bytes: str | bytes) -> int:
        """The id of exactly one token, special ones included.

        Raises:
            TokenIdError: it is not one token.
        """
        if isinstance(text_or_bytes, str):
            if text_or_bytes in self._special.ids:
                return self._special.ids[text_or_bytes]
            text_or_bytes = utf8(text_or_bytes)
        try:
            return self.vocabulary.ids[text_or_bytes]
        except KeyError:
            raise TokenIdError(
                f"{text_or_bytes[:60]!r} is not one token of this vocabulary; use encode"
            ) from None

    # Encoding

    def encode(
        self,
        text: str,
        *,
        allowed_special: Collection[str] | str = frozenset(),
        disallowed_special: Collection[str] | str = "all",
    ) -> list[int]:
        """Text to ids.

        Args:
            text: valid Unicode.
            allowed_special: names of special tokens that become their ids, or "all".
            disallowed_special: names that must not be in the text, or "all" for those that are
                not allowed. With `()` they are ordinary text.

        Raises:
            EncodingError: a disallowed special token, or a lone surrogate, is in the text.

        >>> Tokenizer.train("aaabdaaabac", vocab_size=257).encode("aab")
        [256, 65]
        """
        names = self._special.allowed(text, allowed_special, disallowed_special)
        if not names:
            return self.encode_ordinary(text)
        ids: list[int] = []
        for part in self._special.split(text, names):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self.encode_ordinary(part)
        return ids

    def encode_ordinary(self, text: str) -> list[int]:
        """Text to ids, where names of special tokens are ordinary text.

        Raises:
            EncodingError: a lone surrogate is in the text.
        """
        if self._bulk is None or len(text) < _LONG_TEXT:
            return self._text.encode(text)
        ids: list[int] = self._bulk.encode(utf8(text)).tolist()
        return ids

    def encode_to_numpy(
        self,
        text: str,
        *,
        allowed_special: Collection[str] | str = frozenset(),
        disallowed_special: Collection[str] | str = "all",
    ) -> Ids:
        """`encode`, as an array of `dtype` (uint16 up to 65,536 ids), shape (tokens,)."""
        names = self._special.allowed(text, allowed_special, disallowed_special)
        arrays = [
            np.array([part], self.dtype) if isinstance(part, int) else self._array(part)
            for part in self._special.split(text, names)
        ]
        return np.concatenate(arrays) if arrays else np.empty(0, self.dtype)

    def _array(self, text: str) -> Ids:
        if self._bulk is None or len(text) < _LONG_TEXT:
            return np.array(self._text.encode(text), self.dtype)
        return self._bulk.encode(utf8(text))

    def encode_batch(
        self,
        texts: Iterable[str],
        *,
        allowed_special: Collection[str] | str = frozenset(),
        disallowed_special: Collection[str] | str = "all",
        workers: int = 1,
    ) -> list[list[int]]:
        """`encode` for each text.

        Args:
            texts: the texts.
            allowed_special: as in `encode`.
            disallowed_special: as in `encode`.
            workers: how many processes; 1 stays in this one. A process takes about half a
                second to start, in which one alone encodes some 20 MB.

        Raises:
            EncodingError: as `encode`.
        """
        if workers > 1:
            from phi_tokenizer.workers import encode_in_workers  # noqa: PLC0415 (slow to import)

            options = {"allowed_special": allowed_special, "disallowed_special": disallowed_special}
            return encode_in_workers(self.to_bytes(), texts, workers, options)
        ids, ends = self.encode_batch_to_numpy(
            texts, allowed_special=allowed_special, disallowed_special=disallowed_special
        )
        values: list[int] = ids.tolist()
        out, begin = [], 0
        for end in ends.tolist():
            out.append(values[begin:end])
            begin = end
        return out

    def encode_batch_to_numpy(
        self,
        texts: Iterable[str],
        *,
        allowed_special: Collection[str] | str = frozenset(),
        disallowed_special: Collection[str] | str = "all",
        append: int | None = None,
    ) -> tuple[Ids, npt.NDArray[np.int64]]:
        """All texts into one array: the fastest way to encode a corpus.

        Args:
            texts: the texts, taken one at a time.
            allowed_special: as in `encode`.
            disallowed_special: as in `encode`.
            append: an id to put after each text, such as `eot_token`.

        Returns:
            The ids, of `dtype`, and for each text where its ids end, int64: those of text i are
            `ids[ends[i - 1]:ends[i]]`.

        Raises:
            EncodingError: as `encode`.
            TokenIdError: `append` is not in the vocabulary.
        """
        if append is not None:
            self.token_bytes(append)

        rows = (
            self._special.split(
                text, self._special.allowed(text, allowed_special, disallowed_special)
            )
            for text in texts
        )
        if self._bulk is not None:
            return self._bulk.encode_rows(rows, append)
        end = [] if append is None else [append]
        lists = [[*self._row(row), *end] for row in rows]
        ends = np.cumsum([len(ids) for ids in lists], dtype=np.int64)
        return np.array([token for ids in lists for token in ids], self.dtype), ends

    def _row(self, row: list[str | int]) -> Iterable[int]:
        for part in row:
            if isinstance(part, int):
                yield part
            else:
                yield from self._text.encode(part)

    def encode_bytes(self, data: bytes) -> list[int]:
        """Any bytes to ids; `decode_bytes` gives them back.

        UTF-8 is encoded as `encode_ordinary` does. A byte that is not part of valid UTF-8 counts
        as a character that is neither a letter, a number nor white space.
        """
        try:
            text = data.decode()
        except UnicodeDecodeError:
            if self._bulk is not None and len(data) >= _LONG_TEXT:
                ids: list[int] = self._bulk.encode_bytes(data).tolist()
                return ids
            return self._text.encode_escaped(data.decode("utf-8", "surrogateescape"))
        except AttributeError:
            raise EncodingError(f"bytes are needed, not {type(data).__name__}") from None
        return self.encode_ordinary(text)

    # Decoding

    def decode_bytes(self, ids: Iterable[int] | Ids) -> bytes:
        """Ids to the bytes they stand for. An array is fastest.

        Raises:
            TokenIdError: an id is not in the vocabulary.
        """
        return self._decoder.join(ids)

    def decode(self, ids: Iterable[int] | Ids, errors: str = "replace") -> str:
        """Ids to text.

        Args:
            ids: whole numbers.
            errors: what to do with bytes that are no UTF-8, as in `bytes.decode`.

        Raises:
            TokenIdError: an id is not in the vocabulary.
            EncodingError: with `errors="strict"`, bytes that are no UTF-8.
        """
        data = self._decoder.join(ids)
        try:
            return data.decode("utf-8", errors)
        except UnicodeDecodeError as error:
            raise EncodingError(
                f"the ids give bytes that are not UTF-8, 0x{data[error.start]:02x} at offset "
                f"{error.start}; use errors='replace', or decode_bytes"
            ) from None

    def decode_batch(
        self, batch: Iterable[Iterable[int] | Ids], errors: str = "replace"
    ) -> list[str]:
        """`decode` for each sequence of ids."""
        return [self.decode(ids, errors) for ids in batch]

    def decode_with_offsets(self, ids: Iterable[int] | Ids) -> tuple[str, list[int]]:
        """Ids to text, and for each id the index of the character at which it begins.

        A token that begins inside a character has the offset of that character.

        Raises:
            TokenIdError: an id is not in the vocabulary.
            EncodingError: the ids do not give whole characters.
        """
        ids = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
        text = self.decode(ids, "strict")
        offsets, characters = [], 0
        for token in map(self._decoder.token, ids):
            inside = 0x80 <= token[0] < 0xC0
            offsets.append(max(0, characters - inside))
            characters += sum(not 0x80 <= byte < 0xC0 for byte in token)
        return text, offsets

    def stream_decoder(self) -> StreamDecoder:
        """A decoder for ids that come one at a time; it never gives half a character."""
        return StreamDecoder(self.vocabulary.tokens)


def _check_training(
    vocab_size: int, special_tokens: Sequence[str], pattern: str
) -> tuple[tuple[str, ...], Splitter]:
    special = check_special_names(special_tokens)
    least = 256 + len(special)
    if vocab_size < least:
        what = f" and {len(special)} special tokens" if special else ""
        raise TrainingError(
            f"vocab_size {vocab_size} is too small: 256 bytes{what} need at least {least}"
        )
    if vocab_size > MAX_VOCAB:
        raise TrainingError(f"vocab_size {vocab_size} is too large; at most {MAX_VOCAB}")
    return special, Splitter(pattern)


def _counted(texts: Iterable[str], progress: Progress | None) -> Iterable[str]:
    total = len(texts) if isinstance(texts, Sequence) else 0
    for number, text in enumerate(texts, 1):
        yield text
        if progress is not None and number % 1024 == 0:
            progress("reading", number, total)
