"""Files as memory: mapped, read only when looked at, and never past their end.

>>> Cursor(memoryview(b"\\x03\\x00\\x00\\x00hi"), "model.gguf").text(width=4)
Traceback (most recent call last):
...
phi_infer.errors.FormatError: model.gguf is cut short or damaged at byte 4; copy or convert it again
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

from phi_infer.errors import FormatError

__all__ = ["Cursor", "map_file"]


def map_file(path: Path) -> memoryview:
    """The content of a file, mapped and read-only. Raises OSError, or FormatError if empty."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise FormatError(f"{path} is empty: not a model")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


class Cursor:
    """Reads little-endian values one after the other; a claim past the end is a FormatError."""

    def __init__(self, content: memoryview, name: str | os.PathLike[str]) -> None:
        self._content = content
        self._name = os.fspath(name)
        self.position = 0

    @property
    def left(self) -> int:
        """Bytes after the position."""
        return len(self._content) - self.position

    def bytes(self, size: int) -> memoryview:
        """The next `size` bytes, a view."""
        if not 0 <= size <= self.left:
            raise FormatError(
                f"{self._name} is cut short or damaged at byte {self.position}; "
                "copy or convert it again"
            )
        self.position += size
        return self._content[self.position - size : self.position]

    def number(self, code: str) -> int | float | bool:
        """One number; `code` as in struct."""
        value: int | float | bool = struct.unpack("<" + code, self.bytes(struct.calcsize(code)))[0]
        return value

    def count(self, code: str, *, each: int = 1) -> int:
        """A count of things of at least `each` bytes, all of which must still fit the file."""
        value = int(self.number(code))
        if not 0 <= value * each <= self.left:
            self.bytes(-1)
        return value

    def text(self, *, width: int) -> str:
        """UTF-8 after its length in `width` bytes."""
        size = self.count({4: "I", 8: "Q"}[width])
        try:
            return bytes(self.bytes(size)).decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"{self._name} holds a text that is not UTF-8: {error}") from None
