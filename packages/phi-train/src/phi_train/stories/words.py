"""Words and classes of words: what a slot of a template draws from.

A `Word` has forms (`text`, `a` with its article, `he`, `at`, ..); a `WordClass` is an ordered list
of words, the common ones first, with Zipf weights 1 / (rank + shift) ** zipf. A class draws by
inverting its cumulative distribution, also when some words are excluded because they are in the
story already: the excluded mass is jumped over, so that one uniform number is always enough.

>>> toys = WordClass("toy", [thing("ball"), thing("orange kite")], zipf=1.0, shift=0.0)
>>> toys.words[1].forms["a"], round(toys.probs[0], 3)
('an orange kite', 0.667)
"""

from __future__ import annotations

from bisect import bisect
from itertools import accumulate
from math import log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Word", "WordClass", "character", "place", "plain", "thing", "with_article"]


class Word:
    """A word or a fixed group of words; compared by identity, so two "orange"s can differ.

    `name` is its plain text, `forms` all the ways in which a template may write it.
    """

    __slots__ = ("forms", "name")

    def __init__(self, name: str, **forms: str) -> None:
        self.name = name
        self.forms = {"text": name, **forms}

    def __repr__(self) -> str:
        return f"Word({self.name!r})"


def with_article(text: str) -> str:
    """`'apple'` -> `'an apple'`."""
    vowel = text[0] in "aeiou" and not text.startswith(("uni", "use"))
    return ("an " if vowel else "a ") + text


def plain(text: str) -> Word:
    """An adjective, a verb, a thing to see: forms `text`, `a` and `The`."""
    return Word(text, a=with_article(text), The="The " + text)


def thing(text: str, plural: str | None = None) -> Word:
    """Something that can be held: forms `text`, `a`, `some` (the plural)."""
    return Word(text, a=with_article(text), some=plural or text + "s")


def place(text: str, at: str) -> Word:
    """Somewhere to be: `at` ("at the park"), `At` ("At the park"), `to` ("to the park")."""
    where = f"{at} the {text}"
    return Word(text, at=where, At=where.capitalize(), to=f"to the {text}")


def character(name: str, *, she: bool) -> Word:
    """Someone with a name; the pronouns follow from the name, whatever animal it is given to."""
    he, him, his, kid = ("she", "her", "her", "girl") if she else ("he", "him", "his", "boy")
    return Word(name, he=he, He=he.capitalize(), him=him, his=his, His=his.capitalize(), kid=kid)


class WordClass:
    """Words with probabilities, fixed once and for all.

    Args:
        name: what templates call the class.
        words: the common ones first; no two may have the same text.
        zipf: exponent of the weights; a larger one makes the tail rarer.
        shift: added to the rank; a larger one makes the head flatter.
        weights: explicit weights instead of Zipf's.
    """

    def __init__(
        self,
        name: str,
        words: Sequence[Word],
        *,
        zipf: float = 1.6,
        shift: float = 2.0,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.name = name
        self.words = list(words)
        raw = weights or [(rank + 1 + shift) ** -zipf for rank in range(len(self.words))]
        total = sum(raw)
        self.probs = [w / total for w in raw]
        self.log_probs = [log(p) for p in self.probs]
        self.cumulative = [*accumulate(self.probs[:-1]), 1.0]
        self.index = {word: i for i, word in enumerate(self.words)}
        self._lookup: dict[str, dict[str, list[int]]] = {}

    def draw(self, u: float, used: Sequence[Word] = ()) -> tuple[Word, float]:
        """The word at uniform number `u` in [0, 1), and its log-probability in nats.

        Words in `used` cannot be drawn; the others keep their proportions.
        """
        if not used:
            i = bisect(self.cumulative, u)
            return self.words[i], self.log_probs[i]
        gaps = sorted(self.index[w] for w in used if w in self.index)
        free = 1.0 - sum(self.probs[i] for i in gaps)
        u *= free
        for gap in gaps:
            if u >= (self.cumulative[gap - 1] if gap else 0.0):
                u += self.probs[gap]
        i = min(bisect(self.cumulative, u), len(self.words) - 1)
        return self.words[i], self.log_probs[i] - log(free)

    def log_free(self, used: Sequence[Word]) -> float:
        """log of the mass that is left when `used` are excluded (0.0 when none is)."""
        gaps = sorted(self.index[w] for w in used if w in self.index)
        return log(1.0 - sum(self.probs[i] for i in gaps)) if gaps else 0.0

    def starting(self, text: str, position: int, form: str) -> Iterator[tuple[int, str]]:
        """All `(index, written)` of this class that `text` continues with at `position`."""
        lookup = self._lookup.get(form)
        if lookup is None:
            lookup = {}
            for i, word in enumerate(self.words):
                lookup.setdefault(word.forms[form][:3], []).append(i)
            self._lookup[form] = lookup
        for size in (3, 2, 1, 0):  # written forms shorter than three characters have short keys
            key = text[position : position + size]
            if len(key) == size:
                for i in lookup.get(key, ()):
                    written = self.words[i].forms[form]
                    if text.startswith(written, position):
                        yield i, written
