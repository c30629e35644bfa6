"""What a model remembers of a text that it has read, kept for later: a prompt cache, or a file.

A saved state is one msgpack map {format, version, crc32, model, ids, logits, step}. Nothing in it
is ever executed.
"""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from phi_infer.errors import FormatError
from phi_infer.steps import Step, Weights, new_step
from phi_model import CheckpointError
from phi_model.files import atomic_write, read_map

__all__ = ["PromptCache", "TextState"]

Array = NDArray[Any]

FORMAT, VERSION = "phi-text-state", 1
WHAT = "a saved state of a text"


class TextState:
    """A text as a model has read it: its ids, the step behind them, the next token's logits."""

    def __init__(self, ids: Sequence[int], step: Step, logits: Array) -> None:
        self.ids = list(ids)
        self.step = step
        self.logits = logits

    @property
    def weights(self) -> Weights:
        """Those of the model that read the text."""
        return self.step.weights

    def copy(self) -> TextState:
        """A state that goes on by itself."""
        return TextState(self.ids, self.step.copy(), self.logits)

    def read(self, ids: Sequence[int]) -> None:
        """Goes on by ids, none or more."""
        if len(ids):
            self.logits = self.step.prefill(ids)
            self.ids += ids

    def advance(self, token: int) -> None:
        """Goes on by one token."""
        self.logits = self.step(token)
        self.ids.append(token)

    def fits(self, weights: Weights) -> bool:
        """Whether it is a state of this model, if perhaps of another copy of it in memory."""
        own = self.weights
        return own is weights or (
            own.config == weights.config and _fingerprint(own) == _fingerprint(weights)
        )

    def save(self, path: str | os.PathLike[str], weights: Weights) -> None:
        """Writes a file, whole or not at all; `weights` are those it was read with."""
        with _temporary_folder() as folder:
            part = Path(folder) / "step"
            self.step.save_state(part)
            step = part.read_bytes()
        content = {
            "model": _fingerprint(weights),
            "ids": np.array(self.ids, "<u4").tobytes(),
            "logits": self.logits.astype("<f4").tobytes(),
            "step": step,
        }
        packed = msgpack.packb(content)
        head = {"format": FORMAT, "version": VERSION, "crc32": zlib.crc32(packed)}
        with atomic_write(path) as file:
            file.write(msgpack.packb(head | {"content": packed}))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], weights: Weights, *, window: int | None
    ) -> TextState:
        """What save wrote. Raises OSError, FormatError when it is damaged or another model's."""
        source = Path(path)
        try:
            head = read_map(source, what=WHAT, format=FORMAT, version=VERSION)
            if zlib.crc32(head["content"]) != head["crc32"]:
                raise ValueError("its checksum is wrong")
            content = msgpack.unpackb(head["content"])
            ids = np.frombuffer(content["ids"], "<u4").tolist()
            logits = np.frombuffer(content["logits"], "<f4")
            model, read_step = content["model"], content["step"]
        except CheckpointError as error:
            raise FormatError(str(error)) from None
        except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
            raise FormatError(f"{source} is not {WHAT}, or is damaged ({error})") from None
        if model != _fingerprint(weights) or len(logits) != weights.config.vocab_size:
            raise FormatError(f"{source} is the state of another model; read the text again")
        step = new_step(weights, window=window)
        with _temporary_folder() as folder:
            part = Path(folder) / "step"
            part.write_bytes(read_step)
            step.load_state(part)
        return cls(ids, step, logits)


def _temporary_folder() -> AbstractContextManager[str]:
    import tempfile  # noqa: PLC0415  (a slow import)

    return tempfile.TemporaryDirectory()


def _fingerprint(weights: Weights) -> int:
    """A checksum of the embedding, which no two trainings share."""
    return zlib.crc32(np.ascontiguousarray(weights.embedding).reshape(-1).view(np.uint8).data)


class PromptCache:
    """The states of the last texts, found again by the longest beginning that a text shares.

    size: states kept; each takes as much memory as its model's cache of keys and values.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._states: OrderedDict[tuple[int, ...], TextState] = OrderedDict()

    def find(self, ids: Sequence[int]) -> TextState | None:
        """A copy of the state of the longest kept text that `ids` begins with."""
        fitting = [key for key in self._states if tuple(ids[: len(key)]) == key]
        if not fitting:
            return None
        longest = max(fitting, key=len)
        self._states.move_to_end(longest)
        return self._states[longest].copy()

    def keep(self, state: TextState) -> None:
        """Notes a copy of a state; the one not used for the longest time goes."""
        if self._size == 0:
            return
        key = tuple(state.ids)
        if key not in self._states:
            self._states[key] = state.copy()
        self._states.move_to_end(key)
        while len(self._states) > self._size:
            self._states.popitem(last=False)
