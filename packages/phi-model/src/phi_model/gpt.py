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

from numpy.typing import NDArray

from phi_model.initialise import initialise
from phi_model.language_model import LanguageModel
from phi_model.parameters import FlatTable
from phi_model.passes import backward, forward, parameter_shapes
from phi_model.workspace import Workspace

__all__ = ["GPT"]

Array = NDArray[Any]


class GPT(LanguageModel):
    """The model that ModelConfig of kind "gpt" describes; see LanguageModel."""

    kind = "gpt"

    def _parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return parameter_shapes(self.config)

    def _initialise(self, seed: int) -> None:
        initialise(self.parameters, self.config, seed=seed)

    def _new_workspace(self, batch: int, length: int, *, keep: bool) -> Workspace:
        return Workspace(self.config, batch, length, dtype=self.dtype, keep=keep)

    def _forward_rows(
        self,
        ws: Workspace,
        ids: Array,
        first: int,  # noqa: ARG002 (every row starts from nothing)
        *numbers: float,  # noqa: ARG002
    ) -> None:
        forward(ws, self.parameters, ids)

    def _backward_rows(
        self,
        ws: Workspace,
        g: FlatTable,
        ids: Array,
        targets: Array,
        factors: Array,
        seen: None,  # noqa: ARG002
    ) -> None:
        backward(ws, self.parameters, g, ids, targets, factors)
