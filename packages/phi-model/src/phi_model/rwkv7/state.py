"""What an RWKV-7 remembers of a text: a few arrays whose size no length changes.

A file is one msgpack map: {format, version, position, arrays: {name: {dtype, shape, crc32,
bytes}}}. Nothing in it is ever executed.

>>> from phi_model import ModelConfig
>>> RWKV7State.zeros(ModelConfig.preset("rwkv7-1m")).nbytes
69632
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from numpy.typing import DTypeLike, NDArray

from phi_model.config import ModelConfig
from phi_model.errors import CheckpointError, ConfigError
from phi_model.files import atomic_write, read_map

__all__ = ["RWKV7State", "state_shapes"]

Array = NDArray[Any]

FORMAT, VERSION = "phi-rwkv7-state", 1
NAMES = ("time_shift", "channel_shift", "wkv")
DTYPES = ("<f4", "<f8")


def state_shapes(config: ModelConfig, batch: int = 1) -> dict[str, tuple[int, ...]]:
    """name -> shape for `batch` texts at once."""
    c, n, d = config.n_embd, config.n_layer, config.head_size
    return {
        "time_shift": (batch, n, c),
        "channel_shift": (batch, n, c),
        "wkv": (batch, n, config.n_head, d, d),
    }


@dataclass
class RWKV7State:
    """The state of B texts after `position` tokens each."""

    time_shift: Array  # [B, L, C] what the time mix of each layer saw of the last token
    channel_shift: Array  # [B, L, C] what the channel mix saw of it
    wkv: Array  # [B, L, H, D, D] rows: channels of the values; columns: of the keys
    position: int = 0

    @classmethod
    def zeros(
        cls, config: ModelConfig, *, batch: int = 1, dtype: DTypeLike = np.float32
    ) -> RWKV7State:
        """The state before any token."""
        if config.kind != "rwkv7":
            raise ConfigError(f"the model is a {config.kind}; only an rwkv7 has such a state")
        time, channel, wkv = (np.zeros(s, dtype) for s in state_shapes(config, batch).values())
        return cls(time, channel, wkv)

    @property
    def arrays(self) -> dict[str, Array]:
        """name -> array."""
        return {name: getattr(self, name) for name in NAMES}

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def copy(self) -> RWKV7State:
        """A state that changes by itself."""
        arrays = {name: array.copy() for name, array in self.arrays.items()}
        return RWKV7State(**arrays, position=self.position)

    def check(self, config: ModelConfig, batch: int) -> None:
        """Raises ConfigError unless this is a state of `batch` texts of such a model."""
        found = {name: array.shape for name, array in self.arrays.items()}
        wanted = state_shapes(config, batch)
        if found != wanted:
            raise ConfigError(
                f"the state has shapes {found}, this model and batch need {wanted}: "
                "start from RWKV7State.zeros(config, batch=...)"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the state, whole or not at all."""
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        entries = {
            name: {
                "dtype": array.dtype.newbyteorder("<").str,
                "shape": list(array.shape),
                "crc32": zlib.crc32(raw := array.astype(array.dtype.newbyteorder("<")).tobytes()),
                "bytes": raw,
            }
            for name, array in arrays.items()
        }
        content = {"format": FORMAT, "version": VERSION, "position": self.position}
        with atomic_write(path) as file:
            file.write(msgpack.packb(content | {"arrays": entries}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RWKV7State:
        """Reads what save wrote. Raises CheckpointError for anything else."""
        content = read_map(path, what="a saved state of an rwkv7", format=FORMAT, version=VERSION)
        try:
            arrays = {name: _array(name, content["arrays"][name]) for name in NAMES}
            return cls(**arrays, position=int(content["position"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error


def _array(name: str, entry: dict[str, Any]) -> Array:
    if entry["dtype"] not in DTYPES or zlib.crc32(entry["bytes"]) != entry["crc32"]:
        raise ValueError(f"its {name} has another checksum or dtype")
    flat = np.frombuffer(entry["bytes"], entry["dtype"])
    return flat.reshape(entry["shape"]).astype(flat.dtype.newbyteorder("="))
