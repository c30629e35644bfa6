"""How much memory a model needs, counted from the shapes of its tables and arenas.

Nothing is allocated. Left out is what does not grow with the model or is gone again within a
step: the interpreter and numpy (about 30 MB), the token ids, copies of a few rows.

>>> from phi_model import ModelConfig
>>> use = ModelConfig.preset("gpt-9m").memory(8, 256, workers=2)
>>> f"{use.total / 1e6:.0f} MB, of which {use.activations / 1e6:.0f} MB for activations"
'644 MB, of which 471 MB for activations'
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phi_model.config import ModelConfig
from phi_model.errors import ConfigError
from phi_model.parameters import layout
from phi_model.passes import parameter_shapes
from phi_model.workspace import arena_shapes

__all__ = ["MemoryUse", "memory_use"]

DTYPE = np.dtype(np.float32)
N_MOMENTS = 2  # AdamW's mean and square; Lion has one, schedule-free AdamW two


@dataclass(frozen=True)
class MemoryUse:
    """Bytes, over all workers together."""

    parameters: int
    gradients: int  # each worker has its own
    moments: int  # the optimiser's
    activations: int  # each worker's arena, for its rows of the batch

    @property
    def total(self) -> int:
        """Bytes of all four."""
        return self.parameters + self.gradients + self.moments + self.activations


def memory_use(
    config: ModelConfig, batch_size: int, seq_len: int, *, workers: int = 1, training: bool = True
) -> MemoryUse:
    """Of float32 steps on batches [batch_size, seq_len]; see ModelConfig.memory."""
    for name, value in (("batch_size", batch_size), ("seq_len", seq_len), ("workers", workers)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{name} is {value!r}; it must be a whole number, 1 or more")
    table = layout(parameter_shapes(config), DTYPE)[1] * DTYPE.itemsize
    rows = [batch_size * (m + 1) // workers - batch_size * m // workers for m in range(workers)]
    return MemoryUse(
        parameters=table,
        gradients=table * workers if training else 0,
        moments=table * N_MOMENTS if training else 0,
        activations=sum(_workspace(config, n, seq_len, keep=training) for n in rows if n),
    )


def _workspace(config: ModelConfig, batch: int, length: int, *, keep: bool) -> int:
    """What Workspace.nbytes will be."""
    arena = layout(arena_shapes(config, batch, length, keep=keep), DTYPE)[1]
    rope_tables = 6 * (config.n_group + 1) * (config.head_size // 2) * batch * length
    return (arena + rope_tables) * DTYPE.itemsize
