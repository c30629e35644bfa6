"""The keys and values of one text: a ring of `window` rows a head, the oldest overwritten.

Since RoPE only sees distances, keys keep the angle of their own position however far the text
goes, and the order of the rows in the ring does not matter: a sum has no order. All rows of one
head lie behind each other, as attention reads them: a batch's caches come from slow memory.

A saved state is one msgpack map {format, version, position, window, shape, crc32, rows}. Nothing
in it is ever executed.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from phi_infer.errors import PhiInferError
from phi_infer.gpt_weights import GPTWeights
from phi_model import CheckpointError, ConfigError
from phi_model.files import atomic_write, read_map

__all__ = ["BLOCK", "CHUNK", "ContextError", "GPTCache"]

Array = NDArray[Any]

FORMAT, VERSION = "phi-gpt-state", 1
CHUNK = 256  # tokens read in one pass: as many rows may be there when one of them fails
BLOCK = 32  # rows by which what a step looks at grows: rows not yet filled are zeros


class ContextError(PhiInferError):
    """A text that would go beyond the context it was given."""


class GPTCache:
    """What a GPT remembers of a text after `position` tokens.

    keys [L, K, W, D], values [L, K, W, D + 1] with a 1 behind each. A row that is still zero
    weighs nothing: neither its values nor its 1 add to any sum.
    """

    def __init__(
        self,
        weights: GPTWeights,
        window: int | None = None,
        memory: tuple[Array, Array] | None = None,
    ) -> None:
        """memory: zeros to be used as keys and values."""
        c = weights.config
        if window is not None and window < 0:
            raise ConfigError(f"window is {window}; it must be 1 or more, or 0 to stop at seq_len")
        self.bounded = window == 0
        self.window = window or c.seq_len
        self.weights = weights
        shape = (c.n_layer, c.n_kv_head, self.window)
        self.keys, self.values = memory or (
            np.zeros((*shape, c.head_size), np.float32),
            np.zeros((*shape, c.head_size + 1), np.float32),
        )
        self.position = 0

    @property
    def filled(self) -> int:
        """Rows in use."""
        return min(self.position, self.window)

    def make_room(self, n_tokens: int) -> None:
        """Raises ContextError when a text that may not go on has no room for so many more."""
        if self.bounded and self.position + n_tokens > self.window:
            raise ContextError(
                f"the text is longer than the model's context of {self.window} tokens: shorten it, "
                "or let the context slide"
            )

    @property
    def memory(self) -> list[Array]:
        """All that is remembered, itself."""
        return [self.keys, self.values]

    def copy(self) -> GPTCache:
        """A cache that changes by itself."""
        other = GPTCache(self.weights, 0 if self.bounded else self.window)
        for theirs, own in zip(other.memory, self.memory, strict=True):
            theirs[:, :, : self.filled] = own[:, :, : self.filled]
        other.position = self.position
        return other

    def clear(self) -> None:
        """The start of a text. Rows that were never used are not touched: they are zero."""
        used = slice(self.filled + CHUNK)
        for part in self.memory:
            part[:, :, used] = 0
        self.position = 0

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the rows in use, whole or not at all."""
        n_head, n = self.keys.shape[1], self.filled
        parts = [
            part[:, :, :n].swapaxes(1, 2).reshape(len(part), n, n_head * part.shape[-1])
            for part in self.memory
        ]
        rows = np.concatenate(parts, axis=2).astype("<f4", copy=False)
        raw = rows.tobytes()
        content = {
            "format": FORMAT,
            "version": VERSION,
            "position": self.position,
            "window": self.window,
            "shape": list(rows.shape),
            "crc32": zlib.crc32(raw),
            "rows": raw,
        }
        with atomic_write(path) as file:
            file.write(msgpack.packb(content))

    def load(self, path: str | os.PathLike[str]) -> None:
        """Goes on from what save wrote. Raises CheckpointError, or ConfigError when it is the
        state of another model or window.
        """
        source = Path(path)
        content = read_map(source, what="a saved state of a gpt", format=FORMAT, version=VERSION)
        try:
            position, window, raw = content["position"], content["window"], content["rows"]
            if zlib.crc32(raw) != content["crc32"]:
                raise ValueError("its rows have another checksum")
            rows = np.frombuffer(raw, "<f4").reshape(content["shape"])
            if position < 0 or rows.ndim != 3 or rows.shape[1] != min(position, window):
                raise ValueError(f"{rows.shape} are no rows of a text of {position} tokens")
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{source} is damaged: {error}") from error
        self._take(source, rows, position, window)

    def _take(self, source: Path, rows: Array, position: int, window: int) -> None:
        n_layer, n_head, _, d = self.keys.shape
        n_row = n_head * (2 * d + 1)
        if (rows.shape[0], window, rows.shape[2]) != (n_layer, self.window, n_row):
            raise ConfigError(
                f"{source} has shape {rows.shape} and a window of {window}; this model needs "
                f"({n_layer}, n, {n_row}) and {self.window}"
            )
        self.clear()
        n, n_keys = rows.shape[1], n_head * d
        for part, columns in ((self.keys, rows[..., :n_keys]), (self.values, rows[..., n_keys:])):
            heads = columns.reshape(n_layer, n, n_head, part.shape[-1])
            part[:, :, :n] = heads.swapaxes(1, 2)
        self.position = position
