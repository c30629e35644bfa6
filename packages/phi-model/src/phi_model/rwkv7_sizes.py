"""The sizes that a config gives an RWKV-7: ranks, counts, and what its fields may not be.

Knows numbers only, so that phi_model.config can use it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from phi_model.errors import ConfigError

if TYPE_CHECKING:
    from phi_model.config import ModelConfig

__all__ = ["RANKS", "Counts", "check_rwkv7", "lora_rank", "rwkv7_counts"]

RANKS = {"w": 2.5, "a": 2.5, "v": 1.7, "g": 5.0}  # a LoRA's rank over sqrt(n_embd)


def lora_rank(name: str, n_embd: int) -> int:
    """Rank of the LoRA `name` (w, a, v or g), a multiple of 32, as the authors choose it.

    >>> [lora_rank(name, 128) for name in "wavg"]
    [32, 32, 32, 64]
    """
    return max(32, 32 * round(RANKS[name] * math.sqrt(n_embd) / 32))


@dataclass(frozen=True)
class Counts:
    """Of all layers and norms together, embedding and head left out."""

    non_embedding: int  # parameters
    multiply_adds: int  # a token, forward


def rwkv7_counts(config: ModelConfig) -> Counts:
    """Counts of an RWKV-7 of this config."""
    c, f, n = config.n_embd, config.n_hidden, config.n_layer
    ranks = {name: lora_rank(name, c) for name in RANKS}
    loras = n * 2 * c * sum(ranks.values()) - 2 * c * ranks["v"]  # the first layer mixes no values
    matrices = n * (4 * c * c + 2 * c * f) + loras
    # a layer: mixes 6 + 1; w0, a0, v0; k_k, k_a, r_k; two norms and the heads' norm
    vectors = n * 19 * c - c + 4 * c  # no v0 in the first layer; the first norm and the last
    recurrence = n * 4 * c * config.head_size  # S q, (S q) b^T, v k^T, S r
    return Counts(matrices + vectors, matrices + recurrence)


def check_rwkv7(config: ModelConfig) -> None:
    """Raises ConfigError for heads that do not fit, and for fields that only a GPT has."""
    if config.n_embd % config.n_head:
        raise ConfigError(
            f"n_embd {config.n_embd} cannot be split into {config.n_head} heads; "
            "n_head must divide n_embd"
        )
    for name, default in (
        ("n_kv_head", config.n_head),
        ("qk_norm", False),
        ("rope_base", 10_000.0),
        ("rope_scaling", 1.0),
        ("residual_init", "small"),
    ):
        if getattr(config, name) != default:
            raise ConfigError(
                f"{name} is {getattr(config, name)!r}, but an rwkv7 has no attention: leave it out"
            )
