"""Cutting a text into the pieces inside which merges happen.

    >>> Splitter("gpt2").split("It's 2 o'clock")
    ['It', "'s", ' 2', ' o', "'", 'clock']

A pattern is one of

- `gpt2`: built in, from the tables in unicode_table.py and the standard library's `re`;
- `cl100k`: the pattern of tiktoken's cl100k_base, by the `regex` package;
- `none`: the whole text is one piece;
- anything else is a regular expression of the user's own, by the `regex` package. What it
  does not match is a piece too, so that no text is ever lost.

This is the plain way, one string at a time. `pieces.py` finds the same pieces of the GPT-2
pattern for long texts by comparing whole arrays; the tests hold the two against each other.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from phi_tokenizer.errors import FormatError, MissingExtraError, TokenizerError
from phi_tokenizer.unicode_table import LETTERS, NUMBERS, SPACES, regex_class

__all__ = ["CL100K", "GPT2", "Splitter"]

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""GPT-2's pattern as other libraries write it (Radford et al. 2019, `encoder.py`)."""

CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pattern of tiktoken's cl100k_base, in the form that HF tokenizers files hold."""

_NAMED = {"gpt2": GPT2, "cl100k": CL100K, "none": ""}


class Splitter:
    """A split pattern, ready to use.

    Args:
        pattern: `gpt2`, `cl100k`, `none`, or a regular expression. The regular expressions
            of the named patterns are recognised and stand for their names.

    Raises:
        MissingExtraError: the pattern needs the `regex` package, which is not installed.
        TokenizerError: the regular expression is not valid.

    Attributes:
        name: the name of the pattern, or the regular expression itself.
        regex: the regular expression, empty for `none`.
    """

    def __init__(self, pattern: str = "gpt2") -> None:
        names = {regex: name for name, regex in _NAMED.items()}
        self.name = names.get(pattern, pattern)
        self.regex = _NAMED.get(self.name, self.name)
        self.split: Callable[[str], list[str]]
        """Cut a text: the pieces joined give the text again."""
        if self.name == "gpt2":
            self.split = _split_gpt2
        elif self.name == "none":
            self.split = _split_nothing
        else:
            self.split = _other_splitter(self.name, self.regex)

    def __repr__(self) -> str:
        return f"Splitter({self.name!r})"


def _split_gpt2(text: str) -> list[str]:
    return (_gpt2_ascii() if text.isascii() else _gpt2_unicode()).findall(text)


def _split_nothing(text: str) -> list[str]:
    return [text] if text else []


def _gpt2(letters: str, numbers: str, spaces: str) -> re.Pattern[str]:
    return re.compile(
        rf"'(?:[sdmt]|ll|ve|re)| ?[{letters}]+| ?[{numbers}]+"
        rf"| ?[^{spaces}{letters}{numbers}]+|[{spaces}]+(?![^{spaces}])|[{spaces}]+"
    )


@cache
def _gpt2_ascii() -> re.Pattern[str]:
    return _gpt2("A-Za-z", "0-9", r"\t-\r ")


@cache
def _gpt2_unicode() -> re.Pattern[str]:
    return _gpt2(regex_class(LETTERS), regex_class(NUMBERS), regex_class(SPACES))


def _other_splitter(name: str, pattern: str) -> Callable[[str], list[str]]:
    try:
        regex: Any = importlib.import_module("regex")
    except ImportError:
        raise MissingExtraError(
            f"the split pattern {name[:40]!r} needs the regex package: "
            "pip install 'phi-tokenizer[patterns]'"
        ) from None
    try:
        compiled = regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError) as error:
        raise FormatError(
            f"the split pattern {pattern[:60]!r} is not a valid regular expression: {error}"
        ) from None
    if compiled.groups:
        raise TokenizerError(
            f"the split pattern {pattern[:60]!r} has capturing groups; write (?:...) instead"
        )

    def split(text: str) -> list[str]:
        pieces: list[str] = []
        end = 0
        for match in compiled.finditer(text):
            if match.start() > end:
                pieces.append(text[end : match.start()])
            if match.end() > match.start():
                pieces.append(match.group())
            end = max(end, match.end())
        if end < len(text):
            pieces.append(text[end:])
        return pieces

    return split
