"""Write src/phi_tokenizer/unicode_table.py from what tiktoken's regular expressions match.

    python tools/make_unicode_table.py

Needs tiktoken (a test oracle, never a dependency). Every code point is put through `\\p{L}`,
`\\p{N}` and `\\s`; HF tokenizers classifies all of them alike, which tests/parity asserts. The
Unicode version is found by comparing with the table of a Python that knows it; set it by hand
when a new one comes.
"""

import textwrap
from pathlib import Path

import tiktoken

UNICODE_VERSION = "16.0.0"
TARGET = Path(__file__).parents[1] / "src" / "phi_tokenizer" / "unicode_table.py"

HEAD = '''"""Letters, numbers and white space of Unicode {version}: generated, do not edit.

tools/make_unicode_table.py writes this file. Python's own tables differ between versions of
Python, so none of them is asked: the same text gives the same tokens on every Python.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

__all__ = [
    "LETTER",
    "LETTERS",
    "NUMBER",
    "NUMBERS",
    "OTHER",
    "SPACE",
    "SPACES",
    "UNICODE_VERSION",
    "class_table",
    "parse_ranges",
    "regex_class",
]

UNICODE_VERSION = "{version}"

OTHER, LETTER, NUMBER, SPACE = 0, 1, 2, 3
'''

TAIL = '''

def parse_ranges(text: str) -> list[tuple[int, int]]:
    """The ranges as code points, ends included.

    >>> parse_ranges("41-5a aa")
    [(65, 90), (170, 170)]
    """
    pairs = (item.partition("-") for item in text.split())
    return [(int(first, 16), int(last or first, 16)) for first, _, last in pairs]


def regex_class(text: str) -> str:
    """The ranges as the inside of a character class of `re`.

    >>> regex_class("41-5a aa")
    '\\\\\\\\U00000041-\\\\\\\\U0000005a\\\\\\\\U000000aa-\\\\\\\\U000000aa'
    """
    return "".join(f"\\\\U{first:08x}-\\\\U{last:08x}" for first, last in parse_ranges(text))


@cache
def class_table() -> npt.NDArray[np.uint8]:
    """OTHER, LETTER, NUMBER or SPACE for every code point: uint8, shape (0x110000,)."""
    table = np.zeros(0x110000, np.uint8)
    for text, value in ((LETTERS, LETTER), (NUMBERS, NUMBER), (SPACES, SPACE)):
        for first, last in parse_ranges(text):
            table[first : last + 1] = value
    table.flags.writeable = False
    return table
'''


def matching(pattern: str) -> list[int]:
    """The code points that a regular expression of tiktoken matches."""
    encoding = tiktoken.Encoding(
        "bytes",
        pat_str=pattern,
        mergeable_ranks={bytes([byte]): byte for byte in range(256)},
        special_tokens={},
    )
    everything = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    return [ord(char) for char in bytes(encoding.encode_ordinary(everything)).decode()]


def as_ranges(points: list[int]) -> str:
    """Sorted code points as text: `41-5a 61-7a aa`."""
    ranges: list[list[int]] = []
    for point in points:
        if ranges and ranges[-1][1] == point - 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return " ".join(f"{a:x}" if a == b else f"{a:x}-{b:x}" for a, b in ranges)


def main() -> None:
    """Write the table."""
    parts = [HEAD.format(version=UNICODE_VERSION)]
    for name, pattern in (("LETTERS", r"\p{L}"), ("NUMBERS", r"\p{N}"), ("SPACES", r"\s")):
        lines = textwrap.wrap(as_ranges(matching(pattern)), 94, break_on_hyphens=False)
        parts.append(f'\n{name} = """\n' + "\n".join(lines) + '\n"""\n')
    parts.append(TAIL)
    TARGET.write_text("".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
