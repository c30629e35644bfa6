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
from phi_model.language_model import LanguageModel
from phi_model.rwkv7.initialise import initialise_rwkv7
from phi_model.rwkv7.parameters import decays_weight, rwkv7_parameter_shapes
from phi_model.rwkv7.passes import backward, forward, token_losses
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
        losses = -self.token_log_probs(ids, targets, state=state, reset=reset)
        factors = token_factors(losses.shape, weights)
        return float((losses * factors).sum(dtype=np.float64))

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
        carried = self._lay_out_stream(ids.shape, state, reset)
        self._lay_out(ids, targets)
        self._team.run("losses", *ids.shape, carried)
        if state is not None:
            self._stream.take(state, ids.shape[1])
        return -self._batch.rows(0, *ids.shape)[3]

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
        return ws.logits.T.reshape(*ids.shape, self.config.vocab_size).copy()

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

        ids, targets: whole numbers [B, T]. weights [B, T], any real numbers:
        loss = sum(weights * losses) / (number of weights that are not 0), so a mask of zeros
        and ones gives the mean over the ones, and the gradient is linear in the weights.
        Raises ConfigError for a batch that does not fit, NotFiniteError for a gradient that is
        NaN or infinite, WorkerError when a worker dies.
        """
        ids, targets = self._checked(ids, targets)
        factors = token_factors(ids.shape, weights)
        carried = self._lay_out_stream(ids.shape, state, reset)
        self._need_gradients()
        self._lay_out(ids, targets, factors)
        self._team.run("backward", *ids.shape, carried)
        self._finish_gradients(ids.shape[0])
        if state is not None:
            self._stream.take(state, ids.shape[1])
        losses = self._batch.rows(0, *ids.shape)[3]
        return float(np.vdot(losses.astype(np.float64), factors))

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

    def _losses(self, member: int, batch: float, length: float, *numbers: float) -> None:
        first, end = self._share(member, batch)
        if first == end:
            return
        ids, targets, _, losses = self._batch.rows(first, end, int(length))
        ws: Workspace = self._workspace(member, *ids.shape, keep=False)
        self._forward(ws, ids, first, *numbers)
        losses[...] = token_losses(ws, targets).reshape(ids.shape)

    def _backward(self, member: int, batch: float, length: float, *numbers: float) -> None:
        first, end = self._share(member, batch)
        if first == end:
            return
        ids, targets, factors, losses = self._batch.rows(first, end, int(length))
        ws: Workspace = self._workspace(member, *ids.shape, keep=True)
        reset = self._forward(ws, ids, first, *numbers)
        losses[...] = token_losses(ws, targets).reshape(ids.shape)
        gradients = self._worker_gradients[member]
        backward(ws, self.parameters, gradients, ids, targets, factors, reset)

    def _forward(self, ws: Workspace, ids: Array, first: int, carried: float = 0) -> Array | None:
        """The pass from the state of these rows, or from nothing; returns their borders."""
        if carried:
            reset = self._stream.enter(ws.state, first, ws.length)
            borders = reset if reset.any() else None
            forward(ws, self.parameters, ids, borders)
            self._stream.leave(ws.state, first)
            return borders
        for array in ws.state.arrays.values():
            array[...] = 0
        forward(ws, self.parameters, ids)
        return None

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
