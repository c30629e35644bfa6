"""GPT-2's two files: `vocab.json` (token -> id) and `merges.txt` (a merge a line, in order).

They hold no split pattern, which is GPT-2's, and do not say which tokens are special: those
that are neither a byte nor made by a merge.
"""

import json
from typing import Any

from phi_tokenizer.errors import FormatError
from phi_tokenizer.formats.byte_alphabet import to_bytes, to_text
from phi_tokenizer.formats.hf import read_merge, read_tokens
from phi_tokenizer.vocabulary import Vocabulary

__all__ = ["from_gpt2", "to_gpt2"]

_HEADER = "#version: 0.2"


def to_gpt2(vocabulary: Vocabulary) -> tuple[bytes, bytes]:
    """The contents of `vocab.json` and `merges.txt`.

    Raises:
        FormatError: the pattern is not GPT-2's.
    """
    if vocabulary.pattern != "gpt2":
        raise FormatError(
            "vocab.json and merges.txt hold no split pattern and mean GPT-2's; "
            "save a tokenizer.json instead"
        )
    texts = {index: to_text(token) for token, index in vocabulary.ids.items()}
    names = {index: name for name, index in vocabulary.special.items()}
    vocab = {text: index for index, text in sorted((texts | names).items())}
    lines = [_HEADER, *(f"{texts[a]} {texts[b]}" for a, b in vocabulary.merges), ""]
    return json.dumps(vocab, ensure_ascii=False).encode(), "\n".join(lines).encode()


def from_gpt2(vocab: Any, merges: bytes, *, pattern: str = "gpt2") -> Vocabulary:
    """The vocabulary in a parsed `vocab.json` and the bytes of `merges.txt`.

    Raises:
        FormatError: one of them is broken, or they do not belong together.
    """
    if not isinstance(vocab, dict):
        raise FormatError("not a vocab.json: it must be one object, token -> id")
    try:
        lines = merges.decode().split("\n")
    except UnicodeDecodeError as error:
        raise FormatError(f"merges.txt is not UTF-8 at offset {error.start}") from None
    entries = [
        line.rstrip("\r")
        for number, line in enumerate(lines)
        if line.strip("\r") and not (number == 0 and line.startswith("#version"))
    ]
    made = {entry.replace(" ", "", 1) for entry in entries}
    special = {text: index for text, index in vocab.items() if not _ordinary(text, made)}
    tokens = read_tokens(vocab, special)
    return Vocabulary(
        tokens=tokens,
        merges=[read_merge(entry, vocab) for entry in entries],
        special=special,
        pattern=pattern,
    )


def _ordinary(text: str, made: set[str]) -> bool:
    if text in made:
        return True
    try:
        return len(to_bytes(text)) == 1
    except KeyError:
        return False
