"""Many texts in one pass, over one process or several: a text comes, grows by tokens, and goes.

>>> from phi_infer.steps import fold, new_batch
>>> from phi_model import ModelConfig, build_model
>>> model = build_model(ModelConfig.preset("gpt-1k"))
>>> batch = new_batch(fold(model.config, model.parameters), slots=4)
>>> first, second = batch.add([1, 2, 3]), batch.add([4])
>>> batch.step([first, second], [5, 6]).shape
(2, 1024)
>>> batch.remove(first)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.gpt_batch import GPTBatch
from phi_infer.gpt_weights import GPTWeights
from phi_infer.rwkv7_batch import RWKV7Batch
from phi_infer.rwkv7_weights import RWKV7Weights
from phi_model import ConfigError, shared_zeros
from phi_model.team import make_team

if TYPE_CHECKING:
    from phi_infer.text_state import TextState

__all__ = ["Batch"]

Array = NDArray[Any]

PIECE = 1024  # ids of a prompt handed to a worker at a time


class Batch:
    """Room for `slots` texts.

    workers: more than one splits the slots among forked processes (threads where that is not
    safe); texts are dealt to them in turn. logits [slots, V]: of each slot's last token, after
    add or step. window: see new_step. close() ends the workers.
    """

    def __init__(
        self,
        weights: GPTWeights | RWKV7Weights,
        slots: int,
        *,
        window: int | None = None,
        workers: int = 1,
    ) -> None:
        if slots < 1 or not 1 <= workers <= slots:
            raise ConfigError(
                f"{slots} slots for {workers} workers: give at least one slot to each"
            )
        self.config, self._weights = weights.config, weights
        self._size = workers
        weights.head  # noqa: B018 (folded now, so that workers share the memory)
        each = -(-slots // workers)
        self._parts: list[GPTBatch | RWKV7Batch] = [
            RWKV7Batch(weights, each)
            if isinstance(weights, RWKV7Weights)
            else GPTBatch(weights, each, window=window)
            for _ in range(workers)
        ]
        self.logits = _shared((slots, weights.config.vocab_size), np.float32)
        self._tokens = _shared((slots,), np.int64)
        self._chosen = _shared((slots,), np.int64)
        self._piece = _shared((PIECE,), np.int64)
        remembered = sum(array.size for array in self._parts[0].memory(0))
        self._memory = _shared((remembered,), np.float32)  # of a text on its way into a slot
        self._used = [False] * slots
        self._jobs: dict[str, Callable[..., None]] = {
            "take": self._take,
            "read": self._read,
            "step": self._step,
            "clear": self._clear,
        }
        self._team = make_team("processes", workers, self._jobs) if workers > 1 else None

    @property
    def free(self) -> int:
        """Slots without a text."""
        return self._used.count(False)

    def add(self, ids: Sequence[int], *, state: TextState | None = None) -> int:
        """A new text that begins with ids, one or more: its slot. Its logits are logits[slot].

        state: what the text begins with before ids, which may then be none; it stays as it is.
        Raises ConfigError when no slot is free, or for the state of another model or window.
        """
        if not self.free:
            raise ConfigError(f"all {len(self._used)} slots are taken: remove a text first")
        slot = self._used.index(False)
        if state is None:
            self._do("clear", slot)
        else:
            self._hand_over(state, slot)
        self._read_pieces(slot, ids)
        self._used[slot] = True
        return slot

    def extend(self, slot: int, ids: Sequence[int]) -> None:
        """Reads ids after those that the text in the slot has; its logits are then those after the
        last. A long prompt given in parts lets the other texts grow in between.
        """
        if not self._used[slot]:
            raise ConfigError(f"slot {slot} holds no text")
        self._read_pieces(slot, ids)

    def _read_pieces(self, slot: int, ids: Sequence[int]) -> None:
        for first in range(0, len(ids), PIECE):
            piece = ids[first : first + PIECE]
            self._piece[: len(piece)] = piece
            self._do("read", slot, len(piece))

    def _hand_over(self, state: TextState, slot: int) -> None:
        memory = state.step.memory()
        shapes = [array.shape for array in self._parts[0].memory(0)]
        if not state.fits(self._weights) or [array.shape for array in memory] != shapes:
            raise ConfigError("the state is another model's or window's: read its text again")
        np.concatenate([array.ravel() for array in memory], out=self._memory)
        self.logits[slot] = state.logits
        self._do("take", slot, state.step.position)

    def step(self, slots: Sequence[int] | Array, tokens: Sequence[int] | Array) -> Array:
        """Logits [n, V], a copy, after one token for each of n different slots."""
        if not all(0 <= slot < len(self._used) and self._used[slot] for slot in slots):
            raise ConfigError(f"slots {list(slots)} are not all of texts that were added")
        self._tokens[list(slots)] = tokens
        self._chosen[:] = 0
        self._chosen[list(slots)] = 1
        self._do("step")
        logits: Array = self.logits[list(slots)]
        return logits

    def remove(self, slot: int) -> None:
        """Ends a text; its slot is free."""
        if not self._used[slot]:
            raise ConfigError(f"slot {slot} holds no text")
        self._used[slot] = False

    def close(self) -> None:
        """Ends the workers; a batch of one has none."""
        if self._team is not None:
            self._team.close()

    # what each worker does; slot s is worker s % size's slot s // size

    def _do(self, job: str, *numbers: float) -> None:
        if self._team is not None:
            self._team.run(job, *numbers)
        else:
            self._jobs[job](0, *numbers)

    def _clear(self, member: int, slot: float) -> None:
        if slot % self._size == member:
            self._parts[member].clear(int(slot) // self._size)

    def _take(self, member: int, slot: float, position: float) -> None:
        if slot % self._size == member:
            part, mine, first = self._parts[member], int(slot) // self._size, 0
            for array in part.memory(mine):
                array[...] = self._memory[first : first + array.size].reshape(array.shape)
                first += array.size
            part.set_position(mine, int(position))

    def _read(self, member: int, slot: float, count: float) -> None:
        if slot % self._size == member:
            part, ids = self._parts[member], self._piece[: int(count)]
            self.logits[int(slot)] = part.prefill(int(slot) // self._size, ids)

    def _step(self, member: int) -> None:
        mine = slice(member, None, self._size)
        chosen = np.flatnonzero(self._chosen[mine])
        if len(chosen):
            tokens = self._tokens[mine][chosen]
            self.logits[mine][chosen] = self._parts[member].step(chosen, tokens)


def _shared(shape: tuple[int, ...], dtype: Any) -> Array:
    return shared_zeros(int(np.prod(shape)), dtype).reshape(shape)
