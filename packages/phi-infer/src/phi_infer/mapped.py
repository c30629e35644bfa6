"""Memory behind tensors that are views of a file."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

__all__ = ["let_go"]

Array = NDArray[Any]


def let_go(arrays: Iterable[Array]) -> None:
    """Gives back the memory of the mapped files that read-only arrays are views of.

    They stay valid: what is touched again is read again. Other arrays are left alone.
    """
    for source in {id(source): source for source in map(_mapped_file, arrays)}.values():
        if source is not None and hasattr(mmap, "MADV_DONTNEED"):
            source.madvise(mmap.MADV_DONTNEED)


def _mapped_file(array: Array) -> mmap.mmap | None:
    if array.flags.writeable:  # a file is mapped for reading only; anything else has one owner
        return None
    base: Any = array
    while getattr(base, "base", None) is not None:
        base = base.base
    source = base.obj if isinstance(base, memoryview) else base
    return source if isinstance(source, mmap.mmap) else None
