"""Names and shapes of RWKV-7's parameters. Matrices are [out, in], vectors [C]."""

from __future__ import annotations

from phi_model.config import ModelConfig
from phi_model.rwkv7_sizes import lora_rank

__all__ = ["MIXES", "decays_weight", "rwkv7_parameter_shapes"]

MIXES = ("r", "w", "k", "v", "a", "g")  # what of the token before goes into what


def rwkv7_parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter, in the order of the computation."""
    c, f = config.n_embd, config.n_hidden
    shapes: dict[str, tuple[int, ...]] = {"embedding": (config.vocab_size, c)}
    shapes |= _norm("embedding_norm", c)
    for i in range(config.n_layer):
        layer = f"layers.{i}"
        shapes |= _norm(f"{layer}.time_norm", c)
        shapes |= {f"{layer}.time_mix.mix_{name}": (c,) for name in MIXES}
        shapes |= {f"{layer}.time_mix.{name}": (c, c) for name in ("receptance", "key", "value")}
        for name in ("w", "a", "v", "g"):
            if name == "v" and i == 0:
                continue  # the first layer's values are what later layers mix in
            if name != "g":
                shapes[f"{layer}.time_mix.{name}_bias"] = (c,)
            rank = lora_rank(name, c)
            shapes[f"{layer}.time_mix.{name}_down"] = (rank, c)
            shapes[f"{layer}.time_mix.{name}_up"] = (c, rank)
        shapes |= {f"{layer}.time_mix.{name}": (c,) for name in ("k_k", "k_a", "r_k")}
        shapes |= _norm(f"{layer}.time_mix.head_norm", c)
        shapes[f"{layer}.time_mix.output"] = (c, c)
        shapes |= _norm(f"{layer}.channel_norm", c)
        shapes[f"{layer}.channel_mix.mix_k"] = (c,)
        shapes[f"{layer}.channel_mix.key"] = (f, c)
        shapes[f"{layer}.channel_mix.value"] = (c, f)
    shapes |= _norm("final_norm", c)
    return shapes if config.tied_head else shapes | {"head": (config.vocab_size, c)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.gain": (width,), f"{name}.bias": (width,)}


def decays_weight(name: str, n_dim: int) -> bool:
    """Whether the authors let weight decay act on a parameter: matrices, but no LoRA."""
    return n_dim == 2 and not name.endswith(("_down", "_up"))
