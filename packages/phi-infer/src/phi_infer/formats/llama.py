"""A GPT in the parts that every Llama format has, and what those formats have no place for.

Here queries, keys and values are rows of one matrix, gate and up those of another; elsewhere each
is a tensor of its own. The names of the parts are those of PARTS, "layers.0.q" for example; each
format has its own for them. Matrices are [out, in] everywhere.

Rotation: here and in Hugging Face's layout RoPE turns channel i of a head with channel i + D/2
(halves); in GGUF and llama2.c with its neighbour (pairs). Exchanging rows makes one of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.errors import FormatError
from phi_model import ModelConfig

__all__ = [
    "LAYER_PARTS",
    "halves_to_pairs",
    "join",
    "need_llama",
    "pairs_to_halves",
    "part_names",
    "part_shapes",
    "split",
]

Array = NDArray[Any]

LAYER_PARTS = ("attention_norm", "q", "k", "v", "out", "mlp_norm", "gate", "up", "down")


def need_llama(config: ModelConfig, name: str) -> None:
    """Raises FormatError where the format `name` has no place for what the model is."""
    if config.kind != "gpt":
        raise FormatError(
            f"the {name} format holds no model of kind {config.kind!r}; only --to phi does"
        )
    if config.qk_norm:
        raise FormatError(f"the {name} format has no place for qk_norm; only --to phi does")


def part_names(config: ModelConfig) -> list[str]:
    """The parts of a model, in order."""
    layers = [f"layers.{i}.{part}" for i in range(config.n_layer) for part in LAYER_PARTS]
    return ["embedding", *layers, "final_norm", *([] if config.tied_head else ["head"])]


def part_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each part."""
    c, f, kv, v = config.n_embd, config.n_hidden, config.n_kv_embd, config.vocab_size
    shapes: dict[str, tuple[int, ...]] = {
        "attention_norm": (c,), "q": (c, c), "k": (kv, c), "v": (kv, c), "out": (c, c),
        "mlp_norm": (c,), "gate": (f, c), "up": (f, c), "down": (c, f),
        "embedding": (v, c), "final_norm": (c,), "head": (v, c),
    }  # fmt: skip
    return {name: shapes[name.rpartition(".")[2]] for name in part_names(config)}


def split(config: ModelConfig, parameters: Mapping[str, Array]) -> dict[str, Array]:
    """The parts of a model's parameters, as views."""
    parts = {"embedding": parameters["embedding"]}
    c, kv = config.n_embd, config.n_kv_embd
    for i in range(config.n_layer):
        layer = f"layers.{i}."
        q, k, v = np.split(parameters[layer + "attention.qkv"], [c, c + kv])
        gate, up = np.split(parameters[layer + "mlp.gate_up"], 2)
        found = {
            "attention_norm": parameters[layer + "attention_norm.gain"],
            "q": q, "k": k, "v": v,
            "out": parameters[layer + "attention.out"],
            "mlp_norm": parameters[layer + "mlp_norm.gain"],
            "gate": gate, "up": up,
            "down": parameters[layer + "mlp.down"],
        }  # fmt: skip
        parts |= {layer + name: value for name, value in found.items()}
    parts["final_norm"] = parameters["final_norm.gain"]
    return parts if config.tied_head else parts | {"head": parameters["head"]}


def join(config: ModelConfig, parts: Mapping[str, Array]) -> dict[str, Array]:
    """The parameters of a model from its parts."""
    parameters = {"embedding": parts["embedding"]}
    for i in range(config.n_layer):
        layer = f"layers.{i}."
        of = {name: parts[layer + name] for name in LAYER_PARTS}
        parameters |= {
            layer + "attention_norm.gain": of["attention_norm"],
            layer + "attention.qkv": np.concatenate([of["q"], of["k"], of["v"]]),
            layer + "attention.out": of["out"],
            layer + "mlp_norm.gain": of["mlp_norm"],
            layer + "mlp.gate_up": np.concatenate([of["gate"], of["up"]]),
            layer + "mlp.down": of["down"],
        }
    parameters["final_norm.gain"] = parts["final_norm"]
    return parameters if config.tied_head else parameters | {"head": parts["head"]}


def halves_to_pairs(matrix: Array, n_head: int) -> Array:
    """Rows of each head [D, C] from (first half, second half) to pairs, one of each half."""
    rows = matrix.reshape(n_head, 2, -1, matrix.shape[1])
    return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(matrix.shape)


def pairs_to_halves(matrix: Array, n_head: int) -> Array:
    """The inverse of halves_to_pairs."""
    rows = matrix.reshape(n_head, -1, 2, matrix.shape[1])
    return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(matrix.shape)
