"""The models that every peer of the inference benchmark runs, and their files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from phi_model import LanguageModel, ModelConfig, build_model
from phi_model.rwkv7_convert import to_official

MODELS = {
    "a": {"n_embd": 128, "n_layer": 4, "n_head": 4, "vocab_size": 1024},
    "b": {"n_embd": 256, "n_layer": 8, "n_head": 8, "vocab_size": 4096},
    "c": {"n_embd": 288, "n_layer": 6, "n_head": 6, "n_hidden": 768, "vocab_size": 32_000},
}
TOKENS = 256


def random_model(kind: str, name: str) -> LanguageModel:
    """Weights that make every part matter and greedy texts that do not stand still."""
    config = ModelConfig(kind=kind, seq_len=TOKENS, tied_head=kind == "gpt", **MODELS[name])
    model = build_model(config)
    rng = np.random.default_rng(0)
    for value in model.parameters.values():
        scale = value.shape[1] ** -0.5 if value.ndim == 2 else 0.1
        value[...] += scale * rng.standard_normal(value.shape, dtype=np.float32)
    return model


def write_llama2c(model: LanguageModel, path: Path) -> None:
    """model.bin as run.c maps it, and beside it a tokenizer that shows token 7 as "7 "."""
    c, p = model.config, model.parameters
    layers = [f"layers.{i}" for i in range(c.n_layer)]
    qkv = [np.split(p[f"{layer}.attention.qkv"], 3) for layer in layers]
    gate_up = [np.split(p[f"{layer}.mlp.gate_up"], 2) for layer in layers]
    parts = [p["embedding"], *(p[f"{layer}.attention_norm.gain"] for layer in layers)]
    for i in range(3):
        parts += [_pairs(m[i], c.head_size) if i < 2 else m[i] for m in qkv]
    parts += [p[f"{layer}.attention.out"] for layer in layers]
    parts += [p[f"{layer}.mlp_norm.gain"] for layer in layers]
    parts += [gate for gate, _ in gate_up]
    parts += [p[f"{layer}.mlp.down"] for layer in layers]
    parts += [up for _, up in gate_up]
    parts += [p["final_norm.gain"], np.zeros(c.seq_len * c.head_size, np.float32)]
    shape = (c.n_embd, c.n_hidden, c.n_layer, c.n_head, c.n_head, c.vocab_size, c.seq_len)
    with path.open("wb") as file:
        file.write(struct.pack("<7i", *shape))
        for part in parts:
            file.write(np.ascontiguousarray(part, "<f4").tobytes())
    with path.with_suffix(".tokens").open("wb") as file:
        file.write(struct.pack("<i", 8))
        for i in range(c.vocab_size):
            text = b"%d " % i
            file.write(struct.pack("<fi", 0.0, len(text)) + text)


def _pairs(matrix: np.ndarray, head_size: int) -> np.ndarray:
    """Rows of each head from halves to pairs, as llama2.c rotates them."""
    rows = matrix.reshape(-1, 2, head_size // 2, matrix.shape[1])
    return rows.swapaxes(1, 2).reshape(matrix.shape)


def write_official(model: LanguageModel, path: Path) -> None:
    """An RWKV-7 under its authors' names, as an .npz."""
    np.savez(path, **to_official(model.config, model.parameters))
