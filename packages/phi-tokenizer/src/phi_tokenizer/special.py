"""Special tokens: `<|endoftext|>` and its like, split out of a text before anything else.

    >>> special = SpecialTokens({"<|end|>": 5, "<|endoftext|>": 6})
    >>> special.split("a<|endoftext|>b", special.names)
    ['a', 6, 'b']

Where two could start at the same place, the longest one wins.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache

from phi_tokenizer.errors import EncodingError, TokenizerError

__all__ = ["END_OF_TEXT", "SpecialTokens", "check_special_names", "ordinary_parts", "special_regex"]

END_OF_TEXT = "<|endoftext|>"
_NONE: frozenset[str] = frozenset()


@lru_cache(maxsize=64)
def special_regex(names: frozenset[str]) -> re.Pattern[str]:
    """Matches any of the names, longest first; the match is group 1."""
    ordered = sorted(names, key=lambda name: (-len(name), name))
    return re.compile("(" + "|".join(map(re.escape, ordered)) + ")")


def check_special_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names as a tuple.

    Raises:
        TokenizerError: a name is empty, twice there, or not text.
    """
    if isinstance(names, str):
        raise TokenizerError(f"special_tokens is a list of names, not one text: [{names!r}]")
    seen: dict[str, None] = {}
    for name in names:
        if not isinstance(name, str) or not name:
            raise TokenizerError(f"a special token must be a text that is not empty, not {name!r}")
        if name in seen:
            raise TokenizerError(f"the special token {name!r} is given twice; give it once")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise TokenizerError(
                f"the special token {name!r} holds a lone surrogate; use whole characters"
            ) from None
        seen[name] = None
    return tuple(seen)


def ordinary_parts(texts: Iterable[str], names: Collection[str]) -> Iterator[str]:
    """The texts without the special tokens in them, cut where they were."""
    if not names:
        yield from texts
        return
    separator = special_regex(frozenset(names))
    for text in texts:
        yield from separator.split(text)[::2]


class SpecialTokens:
    """The special tokens of a vocabulary: name -> id."""

    def __init__(self, ids: dict[str, int]) -> None:
        check_special_names(ids)
        self.ids = dict(ids)
        self.names = frozenset(ids)

    def allowed(
        self, text: str, allowed: Collection[str] | str, disallowed: Collection[str] | str
    ) -> frozenset[str]:
        """The names that may be recognised in `text`; tiktoken's rules.

        Args:
            allowed: names, or "all".
            disallowed: names that must not occur in the text, or "all": every one that is
                not allowed. With `()` a name that is not allowed is ordinary text.

        Raises:
            EncodingError: the text holds a disallowed name.
        """
        if disallowed == "all" or not disallowed:
            for name in self.names:
                if name in text:
                    break
            else:
                return _NONE  # the usual case: nothing to look for in this text
        accepted = self.names if allowed == "all" else self.names & frozenset(allowed)
        refused = self.names - accepted if disallowed == "all" else frozenset(disallowed)
        if refused and (found := special_regex(refused).search(text)):
            raise EncodingError(
                f"the text holds the special token {found.group()!r}, which is not allowed here; "
                f"pass allowed_special={{{found.group()!r}}} to encode it as that token, "
                "or disallowed_special=() to encode it as ordinary text"
            )
        return accepted

    def split(self, text: str, names: Collection[str]) -> list[str | int]:
        """Ordinary text and special ids, in order; empty texts are left out."""
        if not names:
            return [text] if text else []
        parts = special_regex(frozenset(names)).split(text)
        return [
            self.ids[part] if odd else part
            for odd, part in zip([False, True] * len(parts), parts, strict=False)
            if part
        ]
