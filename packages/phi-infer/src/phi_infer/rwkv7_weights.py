"""An RWKV-7's weights as the steps want them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from phi_model import ModelConfig

__all__ = ["RWKV7Weights"]

Array = NDArray[Any]


class RWKV7Weights:
    """Weights of one model, read-only: any number of steps may share them."""

    def __init__(self, config: ModelConfig, parameters: Mapping[str, Array]) -> None:
        self.config = config
        self.parameters = parameters

    @property
    def head(self) -> Array:
        """[V, C]."""
        return self.parameters["embedding" if self.config.tied_head else "head"]
