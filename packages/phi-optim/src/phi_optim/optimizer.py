"""What all optimisers have in common, for callers that do not mind which one they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

__all__ = ["Optimizer"]

Array = NDArray[Any]


class Optimizer(Protocol):
    """Updates the arrays it was made for, in place.

    The parameters hold the view of them on which gradients are to be taken; eval() puts the one to
    evaluate and to save in its place, train() takes it back to the last bit. Optimisers with one
    view do nothing there.
    """

    name: str
    schedule: str  # the one it is meant for: "warmup-stable-decay", or "constant" (with warm-up)
    steps: int  # updates made
    learning_rate: float  # the peak, for step() without one

    @property
    def state_floats_per_parameter(self) -> float:
        """Memory beside value and gradient."""

    def step(
        self,
        gradients: Mapping[str, Array],
        *,
        learning_rate: float | None = None,
        scale: float = 1.0,
    ) -> None:
        """One update with scale * gradients; every mistake is raised before anything changes."""

    def update(
        self,
        gradients: Mapping[str, Array],
        *,
        step: int,
        learning_rate: float,
        scale: float = 1.0,
        share: int = 0,
        shares: int = 1,
    ) -> None:
        """One worker's part of update number `step`; all parts together equal step()."""

    def state(self) -> dict[str, Array]:
        """Everything a bit-exact resume needs."""

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Takes over what state() gave, into memory that workers may already share."""

    def train(self) -> None:
        """The parameters become the view to take gradients on."""

    def eval(self) -> None:
        """The parameters become the view to evaluate and to save."""
