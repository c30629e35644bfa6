"""The keys and values of one text: a ring of `window` rows a layer, the oldest overwritten.

Since RoPE only sees distances, keys keep the angle of their own position however far the text
goes, and the order of the rows in the ring does not matter: a sum has no order.

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

__all__ = ["BLOCK", "ContextError", "GPTCache"]

Array = NDArray[Any]

FORMAT, VERSION = "phi-gpt-state", 1
BLOCK = 32  # rows by which what a step looks at grows: rows not yet filled are zeros


class ContextError(PhiInferError):
    """A text that would go beyond the context it was given."""


class GPTCache:
    """What a GPT remembers of a text after `position` tokens.

    rows [L, W, R]: the keys of all heads, then each head of values with a 1 behind it. A row that
    is still zero weighs nothing: neither its values nor its 1 add to any sum.
    """

    def __init__(self, weights: GPTWeights, window: int | None = None, rows: Array | None = None):
        c = weights.config
        if window is not None and window < 0:
            raise ConfigError(f"window is {window}; it must be 1 or more, or 0 to stop at seq_len")
        self.bounded = window == 0
        self.window = window or c.seq_len
        self.weights = weights
        shape = (c.n_layer, self.window, weights.n_row)
        self.rows = np.zeros(shape, np.float32) if rows is None else rows
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

    def keys_and_values(self, rows: Array) -> tuple[Array, Array]:
        """Views [..., K, D, n] and [..., K, n, D + 1] of rows [..., n, R]."""
        c, n_keys = self.weights.config, self.weights.config.n_kv_embd
        heads = (*rows.shape[:-1], c.n_kv_head, -1)
        keys = np.moveaxis(rows[..., :n_keys].reshape(heads), -3, -1)
        return keys, rows[..., n_keys:].reshape(heads).swapaxes(-2, -3)

    def copy(self) -> GPTCache:
        """A cache that changes by itself."""
        other = GPTCache(self.weights, 0 if self.bounded else self.window)
        other.rows[:, : self.filled] = self.rows[:, : self.filled]
        other.position = self.position
        return other

    def clear(self) -> None:
        """The start of a text."""
        self.rows[...] = 0
        self.position = 0

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the rows in use, whole or not at all."""
        rows = np.ascontiguousarray(self.rows[:, : self.filled], "<f4")
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
        n_layer, _, n_row = self.rows.shape
        if (rows.shape[0], window, rows.shape[2]) != (n_layer, self.window, n_row):
            raise ConfigError(
                f"{source} has shape {rows.shape} and a window of {window}; this model needs "
                f"({n_layer}, n, {n_row}) and {self.window}"
            )
        self.clear()
        self.rows[:, : rows.shape[1]] = rows
        self.position = position
