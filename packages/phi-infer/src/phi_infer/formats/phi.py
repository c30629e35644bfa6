"""A model for generation alone as a .phi: weights in float32, half or int8, and the tokenizer.

In int8 each row of a matrix has a scale, its largest magnitude / 127; vectors stay float32. What
training keeps beside them (an optimiser's moments, a batch order) is left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
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
    """Writes the file; returns its path. dtype: float32, float16 or int8.

    Raises FormatError for weights that a dtype cannot hold, OSError.
    """
    parameters, scales = dict(checkpoint.parameters), {}
    for name, value in parameters.items():
        if dtype == "int8" and value.ndim == 2:
            parameters[name], scales[f"scale/{name}"] = _quantize(name, value)
        else:
            parameters[name] = as_dtype(name, value, "float32" if dtype == "int8" else dtype)
    save_checkpoint(
        path,
        cast(LanguageModel, _Stored(checkpoint.config, parameters)),
        step=checkpoint.step,
        tokenizer=checkpoint.tokenizer,
        tensors=scales,
    )
    return [Path(path)]


def _quantize(name: str, matrix: Array) -> tuple[Array, Array]:
    """int8 [R, C] and the scales [R] of its rows."""
    scales = np.abs(matrix).max(axis=1).astype(np.float32) / np.float32(127)
    if not np.isfinite(scales).all():
        raise FormatError(f"{name} is not finite: its training diverged")
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
    return np.rint(matrix * inverse[:, None]).clip(-127, 127).astype(np.int8), scales
