"""A model for generation alone as a .phi: the weights in float32 or half, and the tokenizer.

What training keeps beside them (an optimiser's moments, a batch order) is left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from numpy.typing import NDArray

from phi_infer.errors import FormatError
from phi_infer.formats.model import as_dtype
from phi_model import Checkpoint, LanguageModel, ModelConfig, save_checkpoint

__all__ = ["write_phi"]

Array = NDArray[Any]


@dataclass(frozen=True)
class _Stored:
    """As much of a model as save_checkpoint looks at: parameters of any dtype."""

    config: ModelConfig
    parameters: Mapping[str, Array]


def write_phi(
    checkpoint: Checkpoint, path: str | os.PathLike[str], *, dtype: str = "float32"
) -> list[Path]:
    """Writes the file; returns its path. dtype: float32 or float16. Raises FormatError, OSError."""
    if dtype == "int8":
        raise FormatError("a .phi holds float32 or float16, not int8; for int8 use --to gguf")
    parameters = {n: as_dtype(n, value, dtype) for n, value in checkpoint.parameters.items()}
    save_checkpoint(
        path,
        cast(LanguageModel, _Stored(checkpoint.config, parameters)),
        step=checkpoint.step,
        tokenizer=checkpoint.tokenizer,
    )
    return [Path(path)]
