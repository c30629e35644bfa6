"""The state that a recurrent model carries from one training step to the next.

Rows of batches of kind "streams" go on where they ended in the step before; the state does, too,
and forgets where a document begins. So a model learns from texts longer than seq_len, while
gradients end at the batch's first token (truncated back-propagation through time).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from phi_model import LanguageModel, RWKV7State
from phi_train.config import TrainConfig
from phi_train.errors import RunError

__all__ = ["CarriedState"]

Array = NDArray[Any]


class CarriedState:
    """The state of every row of a step, all accumulated batches together."""

    def __init__(self, model: LanguageModel, config: TrainConfig) -> None:
        self._rows = config.batch_size
        self.state = RWKV7State.zeros(
            model.config, batch=config.batch_size * config.grad_accum, dtype=model.dtype
        )

    @classmethod
    def wanted(cls, model: LanguageModel, config: TrainConfig) -> bool:
        """Whether there is a state to carry, and rows that go on."""
        return model.config.kind == "rwkv7" and config.batches == "streams"

    def part(self, number: int) -> RWKV7State:
        """The rows of accumulated batch `number`, a view: what is written to it stays."""
        rows = slice(number * self._rows, (number + 1) * self._rows)
        whole = self.state
        return RWKV7State(whole.time_shift[rows], whole.channel_shift[rows], whole.wkv[rows])

    def tensors(self) -> dict[str, Array]:
        """A copy, for a checkpoint."""
        return {name: array.copy() for name, array in self.state.arrays.items()}

    def restore(self, tensors: Mapping[str, Array]) -> None:
        """Goes on from what tensors() gave. Raises RunError when there is no such state."""
        for name, array in self.state.arrays.items():
            if name not in tensors:
                raise RunError(
                    "the checkpoint holds no carried state: the run began with other batches or "
                    "an older phi-train; start anew with --init-from"
                )
            array[...] = tensors[name]
