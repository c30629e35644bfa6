"""What a tokenizer is, as data: the tokens, the merges, the special tokens, the pattern.

Every file format is read into a `Vocabulary` and written from one; the encoder is built from
it. Ids of a trained vocabulary: the 256 bytes in GPT-2's order, then the merges, then the
special tokens. An imported one keeps the ids that its file gives.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from phi_tokenizer.errors import FormatError
from phi_tokenizer.special import check_special_names

__all__ = ["BYTE_ORDER", "Vocabulary"]

BYTE_ORDER: tuple[int, ...] = (
    *range(33, 127),
    *range(161, 173),
    *range(174, 256),
    *range(33),
    *range(127, 161),
    173,
)
"""GPT-2's order of the 256 bytes: those with a visible character first. Index = id."""


@dataclass(frozen=True)
class Vocabulary:
    """A complete, checked vocabulary.

    Attributes:
        tokens: the bytes of each id; None for an id that stands for nothing. The bytes of a
            special token are its name in UTF-8.
        merges: pairs of ids in the order in which they were learned; the rank is the index.
        special: name -> id.
        pattern: a pattern's name or regular expression, as `Splitter` takes it.
        whole_pieces_first: a piece that is a token becomes that token whatever the merges
            say (tiktoken's rule, `ignore_merges` in HF's files).

    Raises:
        FormatError: a byte has no token, a merge or an id is out of range, a token is there
            twice, a merge makes a token that does not exist.
    """

    tokens: Sequence[bytes | None]
    merges: Sequence[tuple[int, int]]
    special: dict[str, int] = field(default_factory=dict)
    pattern: str = "gpt2"
    whole_pieces_first: bool = False
    ids: dict[bytes, int] = field(init=False, repr=False)
    """Bytes -> id of the tokens that are not special."""
    merged: list[int] = field(init=False, repr=False)
    """The id that each merge makes."""
    holes: list[int] = field(init=False, repr=False)
    """The ids that stand for nothing."""

    def __post_init__(self) -> None:
        check_special_names(self.special)
        special_ids = set(self.special.values())
        if len(special_ids) != len(self.special):
            raise FormatError("two special tokens have the same id; give each its own")
        ids = {
            token: index
            for index, token in enumerate(self.tokens)
            if token is not None and index not in special_ids
        }
        ordinary = sum(
            token is not None and index not in special_ids
            for index, token in enumerate(self.tokens)
        )
        if len(ids) != ordinary:
            raise FormatError("two ids of the vocabulary stand for the same bytes")
        for name, index in self.special.items():
            if not 0 <= index < len(self.tokens) or self.tokens[index] != name.encode():
                raise FormatError(f"the special token {name!r} has no place at id {index}")
            if name.encode() in ids:
                raise FormatError(
                    f"the special token {name!r} is an ordinary token too; choose a name that "
                    f"does not come up in texts, such as '<|{name}|>'"
                )
        if b"" in ids:
            raise FormatError(f"the token with id {ids[b'']} is empty")
        missing = [byte for byte in range(256) if bytes([byte]) not in ids]
        if missing:
            raise FormatError(
                f"the vocabulary has no token for byte 0x{missing[0]:02x} "
                f"({len(missing)} of 256 missing); it is not a byte-level one"
            )
        object.__setattr__(self, "ids", ids)
        object.__setattr__(
            self, "holes", [i for i, token in enumerate(self.tokens) if token is None]
        )
        object.__setattr__(self, "merged", self._merged(ids))

    def _merged(self, ids: dict[bytes, int]) -> list[int]:
        merged: list[int] = []
        if len(set(self.merges)) != len(self.merges):
            raise FormatError("a merge is there twice")
        ordinary = {index: token for token, index in ids.items()}
        for rank, (a, b) in enumerate(self.merges):
            if a not in ordinary or b not in ordinary:
                raise FormatError(f"merge {rank} joins the ids {a} and {b}, not both tokens")
            joined = ordinary[a] + ordinary[b]
            if joined not in ids:
                raise FormatError(
                    f"merge {rank} makes {joined[:40]!r}, which is not in the vocabulary"
                )
            merged.append(ids[joined])
        return merged
