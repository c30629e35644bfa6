"""How much memory an RWKV-7 needs, counted from the shapes of its tables and arenas."""

from __future__ import annotations

import numpy as np

from phi_model.config import ModelConfig
from phi_model.errors import ConfigError
from phi_model.memory_use import MemoryUse
from phi_model.parameters import layout
from phi_model.rwkv7.parameters import rwkv7_parameter_shapes
from phi_model.rwkv7.workspace import arena_shapes

__all__ = ["rwkv7_memory_use"]

DTYPE = np.dtype(np.float32)
N_MOMENTS = 2  # AdamW's mean and square


def rwkv7_memory_use(
    config: ModelConfig, batch_size: int, seq_len: int, *, workers: int = 1, training: bool = True
) -> MemoryUse:
    """Of float32 steps on batches [batch_size, seq_len]; see ModelConfig.memory."""
    for name, value in (("batch_size", batch_size), ("seq_len", seq_len), ("workers", workers)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{name} is {value!r}; it must be a whole number, 1 or more")
    table = layout(rwkv7_parameter_shapes(config), DTYPE)[1] * DTYPE.itemsize
    rows = [batch_size * (m + 1) // workers - batch_size * m // workers for m in range(workers)]
    arenas = [layout(arena_shapes(config, n, seq_len, keep=training), DTYPE)[1] for n in rows if n]
    return MemoryUse(
        parameters=table,
        gradients=table * workers if training else 0,
        moments=table * N_MOMENTS if training else 0,
        activations=sum(arenas) * DTYPE.itemsize,
    )
