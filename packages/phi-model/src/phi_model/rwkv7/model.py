"""RWKV-7 with its gradients by hand, in numpy: the interface of GPT, and a state that goes on.

Knows token ids, not text; computes gradients, not updates. phi_model.rwkv7.reference is the same
model without workspaces, chunks and workers, slower and easier to read.

>>> import numpy as np
>>> from phi_model import ModelConfig, RWKV7
>>> model = RWKV7(ModelConfig.preset("rwkv7-100k"), seed=0)
>>> ids = np.array([[1, 2, 3]])
>>> loss = model.loss_and_grad(ids[:, :-1], ids[:, 1:])
>>> model.gradients["embedding"].shape
(1024, 32)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from phi_model.batch import as_ids, token_factors
from phi_model.config import ModelConfig
from phi_model.language_model import LanguageModel, weighted_sum
from phi_model.parameters import FlatTable
from phi_model.rwkv7.initialise import initialise_rwkv7
from phi_model.rwkv7.parameters import decays_weight, rwkv7_parameter_shapes
from phi_model.rwkv7.passes import backward, forward
from phi_model.rwkv7.state import RWKV7State
from phi_model.rwkv7.stream import SharedStream, as_reset
from phi_model.rwkv7.workspace import Workspace
from phi_model.team import make_team

__all__ = ["RWKV7"]

Array = NDArray[Any]


class RWKV7(LanguageModel):
    """The model that ModelConfig of kind "rwkv7" describes; see LanguageModel.

    Every pass takes a `state` [B rows] where the texts left off, and leaves it where they now
    end; without one each row starts from nothing. `reset` [B, T], True where a token starts a
    document, empties the state before that token. Gradients do not flow into the state that came
    in (truncated back-propagation through time).
    """

    kind = "rwkv7"
    difference_step = 1e-4  # the norm of a head bends sharply where its output is small

    def __init__(
        self, config: ModelConfig, *, seed: int = 0, dtype: DTypeLike = np.float32
    ) -> None:
        super().__init__(config, seed=seed, dtype=dtype)
        self._stream = SharedStream(config, 0, 0, self.dtype)

    def loss(
        self,
        ids: ArrayLike,
        targets: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        state: RWKV7State | None = None,
        reset: ArrayLike | None = None,
    ) -> float:
        """Mean cross-entropy in nats a token; see loss_and_grad for weights."""
        return weighted_sum(-self.token_log_probs(ids, targets, state=state, reset=reset), weights)

    def token_log_probs(
        self,
        ids: ArrayLike,
        targets: ArrayLike,
        *,
        state: RWKV7State | None = None,
        reset: ArrayLike | None = None,
    ) -> Array:
        """log p(target) [B, T] in nats for ids, targets [B, T]."""
        ids, targets = self._checked(ids, targets)
        log_probs = self._run_losses(ids, targets, self._lay_out_stream(ids.shape, state, reset))
        if state is not None:
            self._stream.take(state, ids.shape[1])
        return log_probs

    def logits(self, ids: ArrayLike, *, state: RWKV7State | None = None) -> Array:
        """Logits [B, T, V] for ids [B, T], a copy."""
        ids = as_ids("ids", ids, self.config.vocab_size)
        ws: Workspace = self._workspace(0, *ids.shape, keep=False)
        start = RWKV7State.zeros(self.config, batch=len(ids)) if state is None else state
        start.check(self.config, len(ids))
        for name, array in ws.state.arrays.items():
            array[...] = start.arrays[name]
        forward(ws, self.parameters, ids)
        for name, array in ws.state.arrays.items():
            start.arrays[name][...] = array
        start.position += ids.shape[1]
        return self._copy_of_logits(ws)

    def loss_and_grad(
        self,
        ids: ArrayLike,
        targets: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        state: RWKV7State | None = None,
        reset: ArrayLike | None = None,
    ) -> float:
        """The loss in nats a token, its gradient left in `gradients` (overwritten).

        Weights and errors as in LanguageModel.loss_and_grad.
        """
        ids, targets = self._checked(ids, targets)
        factors = token_factors(ids.shape, weights)
        carried = self._lay_out_stream(ids.shape, state, reset)
        loss = self._run_backward(ids, targets, factors, carried)
        if state is not None:
            self._stream.take(state, ids.shape[1])
        return loss

    # what LanguageModel asks for

    def _parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return rwkv7_parameter_shapes(self.config)

    def decays(self, name: str) -> bool:
        """As its authors have it: matrices, but no LoRA."""
        return decays_weight(name, self.parameters[name].ndim)

    def _initialise(self, seed: int) -> None:
        initialise_rwkv7(self.parameters, self.config, seed=seed)

    def _new_workspace(self, batch: int, length: int, *, keep: bool) -> Workspace:
        return Workspace(self.config, batch, length, dtype=self.dtype, keep=keep)

    def _forward_rows(self, ws: Workspace, ids: Array, first: int, *numbers: float) -> Array | None:
        """The pass from the state of these rows, or from nothing; returns their borders."""
        if any(numbers):
            reset = self._stream.enter(ws.state, first, ws.length)
            borders = reset if reset.any() else None
            forward(ws, self.parameters, ids, borders)
            self._stream.leave(ws.state, first)
            return borders
        for array in ws.state.arrays.values():
            array[...] = 0
        forward(ws, self.parameters, ids)
        return None

    def _backward_rows(
        self,
        ws: Workspace,
        g: FlatTable,
        ids: Array,
        targets: Array,
        factors: Array,
        seen: Array | None,
    ) -> None:
        backward(ws, self.parameters, g, ids, targets, factors, seen)

    # what the jobs stand on

    def _lay_out_stream(
        self, shape: tuple[int, ...], state: RWKV7State | None, reset: ArrayLike | None
    ) -> float:
        """Puts states and borders where the workers look; 0 when there are none of them."""
        if state is None and reset is None:
            return 0.0
        rows, length = shape
        state = RWKV7State.zeros(self.config, batch=rows) if state is None else state
        state.check(self.config, rows)
        borders = np.zeros(shape, bool) if reset is None else as_reset(reset, shape)
        if rows > self._stream.rows or rows * length > self._stream.tokens:
            self._team.close()
            self._stream = SharedStream(self.config, rows, rows * length, self.dtype)
            self._team = make_team(self._runner, self._size, self._jobs)
        self._stream.put(state, borders)
        return 1.0
