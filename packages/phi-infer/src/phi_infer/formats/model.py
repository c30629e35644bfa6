"""From what a foreign file says to a checkpoint, checked before anything large is made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.errors import FormatError
from phi_infer.formats.llama import LAYER_PARTS, join, part_shapes
from phi_model import Checkpoint, ConfigError, ModelConfig

__all__ = ["DTYPES", "as_dtype", "config_of", "to_checkpoint"]

Array = NDArray[Any]

DTYPES = ("float32", "float16", "int8")  # how weights may be stored


def config_of(path: Path, n_tensors: int, values: Mapping[str, Any]) -> ModelConfig:
    """The config with these fields. Raises FormatError if there is none, or not enough tensors."""
    try:
        config = ModelConfig(**values)
    except ConfigError as error:
        raise FormatError(f"{path} describes no model: {error}") from None
    if n_tensors < config.n_layer * len(LAYER_PARTS):
        raise FormatError(
            f"{path} says {config.n_layer} layers, but has only {n_tensors} tensors: it is damaged"
        )
    return config


def to_checkpoint(
    path: Path, config: ModelConfig, parts: Mapping[str, Array], tokenizer: bytes | None
) -> Checkpoint:
    """A checkpoint of the parts of a model. Raises FormatError where they do not fit the config."""
    for name, shape in part_shapes(config).items():
        found = parts[name].shape if name in parts else None
        if found != shape:
            what = "is missing" if found is None else f"has shape {list(found)}, not {list(shape)}"
            raise FormatError(f"{path}: its {name} {what}: damaged, or not a plain Llama")
    tensors = {f"model/{name}": value for name, value in join(config, parts).items()}
    return Checkpoint(path, config, step=0, tokenizer=tokenizer, metadata={}, tensors=tensors)


def as_dtype(name: str, value: Array, dtype: str) -> Array:
    """`value` in a stored dtype; a weight too large for it is a FormatError."""
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(value, dtype=dtype)
    if np.isinf(stored).any() and not np.isinf(value).any():
        raise FormatError(
            f"{name} holds {np.abs(value).max():g}, which {dtype} cannot; use --dtype float32"
        )
    return stored
