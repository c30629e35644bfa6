"""A GPT with its gradients by hand, in numpy: RMSNorm, RoPE, causal attention, SwiGLU.

phi_model.reference is the same model without workspaces and workers, slower and easier to read.

>>> import numpy as np
>>> from phi_model import GPT, ModelConfig
>>> model = GPT(ModelConfig.preset("gpt-1k"), seed=0)
>>> ids = np.array([[1, 2, 3]])
>>> loss = model.loss_and_grad(ids[:, :-1], ids[:, 1:])
>>> model.gradients["embedding"].shape
(1024, 8)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phi_model.batch import as_ids, token_factors
from phi_model.initialise import initialise
from phi_model.language_model import LanguageModel
from phi_model.passes import backward, forward, parameter_shapes, token_losses
from phi_model.workspace import Workspace

__all__ = ["GPT"]

Array = NDArray[Any]


class GPT(LanguageModel):
    """The model that ModelConfig of kind "gpt" describes; see LanguageModel."""

    kind = "gpt"

    def loss(self, ids: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None) -> float:
        """Mean cross-entropy in nats a token; see loss_and_grad for weights."""
        losses = -self.token_log_probs(ids, targets)
        factors = token_factors(losses.shape, weights)
        return float((losses * factors).sum(dtype=np.float64))

    def token_log_probs(self, ids: ArrayLike, targets: ArrayLike) -> Array:
        """log p(target) [B, T] in nats for ids, targets [B, T]."""
        ids, targets = self._checked(ids, targets)
        self._lay_out(ids, targets)
        self._team.run("losses", *ids.shape)
        return -self._batch.rows(0, *ids.shape)[3]

    def logits(self, ids: ArrayLike) -> Array:
        """Logits [B, T, V] for ids [B, T], a copy."""
        ids = as_ids("ids", ids, self.config.vocab_size)
        ws: Workspace = self._workspace(0, *ids.shape, keep=False)
        forward(ws, self.parameters, ids)
        return ws.logits.T.reshape(*ids.shape, self.config.vocab_size).copy()

    def loss_and_grad(
        self, ids: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None
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
        self._need_gradients()
        self._lay_out(ids, targets, factors)
        self._team.run("backward", *ids.shape)
        self._finish_gradients(ids.shape[0])
        losses = self._batch.rows(0, *ids.shape)[3]
        return float(np.vdot(losses.astype(np.float64), factors))

    # what LanguageModel asks for

    def _parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return parameter_shapes(self.config)

    def _initialise(self, seed: int) -> None:
        initialise(self.parameters, self.config, seed=seed)

    def _new_workspace(self, batch: int, length: int, *, keep: bool) -> Workspace:
        return Workspace(self.config, batch, length, dtype=self.dtype, keep=keep)

    def _losses(self, member: int, batch: float, length: float, *numbers: float) -> None:  # noqa: ARG002
        first, end = self._share(member, batch)
        if first == end:
            return
        ids, targets, _, losses = self._batch.rows(first, end, int(length))
        ws: Workspace = self._workspace(member, *ids.shape, keep=False)
        forward(ws, self.parameters, ids)
        losses[...] = token_losses(ws, targets).reshape(ids.shape)

    def _backward(self, member: int, batch: float, length: float, *numbers: float) -> None:  # noqa: ARG002
        first, end = self._share(member, batch)
        if first == end:
            return
        ids, targets, factors, losses = self._batch.rows(first, end, int(length))
        ws: Workspace = self._workspace(member, *ids.shape, keep=True)
        forward(ws, self.parameters, ids)
        losses[...] = token_losses(ws, targets).reshape(ids.shape)
        backward(ws, self.parameters, self._worker_gradients[member], ids, targets, factors)
