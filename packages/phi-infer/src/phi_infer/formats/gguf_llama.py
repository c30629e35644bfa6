"""A GPT as the GGUF architecture "llama", which llama.cpp and what is built on it run.

Queries and keys turn in pairs there: their rows are exchanged. Vectors stay float32. Weights are
F32, F16 or Q8_0; a matrix whose rows are no multiple of 32 is F16 where the rest is Q8_0. The
tokenizer goes along as the model "gpt2" with GPT-2's split pattern.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.errors import FormatError
from phi_infer.formats import q8_0
from phi_infer.formats.gguf import Blocks, read_gguf, write_gguf
from phi_infer.formats.llama import (
    LAYER_PARTS,
    halves_to_pairs,
    need_llama,
    pairs_to_halves,
    part_names,
    split,
)
from phi_infer.formats.model import as_dtype, config_of, to_checkpoint
from phi_model import Checkpoint, ModelConfig
from phi_tokenizer import Tokenizer, TokenizerError
from phi_tokenizer.formats.byte_alphabet import to_bytes, to_text
from phi_tokenizer.vocabulary import Vocabulary

__all__ = ["read_gguf_llama", "write_gguf_llama"]

Array = NDArray[Any]

END_OF_TEXT = "<|endoftext|>"
NAMES = {"embedding": "token_embd", "final_norm": "output_norm", "head": "output"}
LAYER_NAMES = dict(
    zip(
        LAYER_PARTS,
        (
            "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output",
            "ffn_norm", "ffn_gate", "ffn_up", "ffn_down",
        ),
        strict=True,
    )
)  # fmt: skip
FILE_TYPES = {"float32": 0, "float16": 1, "int8": 7}  # general.file_type
NORMAL, CONTROL, UNUSED = 1, 3, 5  # tokenizer.ggml.token_type


def _their_name(part: str) -> str:
    if part in NAMES:
        return f"{NAMES[part]}.weight"
    _, layer, name = part.split(".")
    return f"blk.{layer}.{LAYER_NAMES[name]}.weight"


def write_gguf_llama(
    checkpoint: Checkpoint, path: str | os.PathLike[str], *, dtype: str = "float32"
) -> list[Path]:
    """Writes the file; returns its path. dtype: float32 (F32), float16 (F16) or int8 (Q8_0).

    Raises FormatError for what GGUF's llama cannot hold (RWKV-7, QK-norm, a split pattern other
    than GPT-2's), OSError.
    """
    config = checkpoint.config
    need_llama(config, "gguf")
    heads = {"q": config.n_head, "k": config.n_kv_head}
    tensors = {}
    for part, value in split(config, checkpoint.parameters).items():
        n_head = heads.get(part.rpartition(".")[2])
        turned = value if n_head is None else halves_to_pairs(value, n_head)
        tensors[_their_name(part)] = _store(part, turned, dtype)
    metadata = _metadata(config, dtype) | _tokenizer_metadata(checkpoint)
    write_gguf(path, metadata, tensors)
    return [Path(path)]


def _store(name: str, value: Array, dtype: str) -> Array | Blocks:
    if value.ndim == 1 or dtype == "float32":
        return as_dtype(name, value, "float32")
    if dtype == "int8" and value.shape[1] % q8_0.BLOCK == 0:
        return Blocks(q8_0.quantize(value), value.shape)
    return as_dtype(name, value, "float16")


def _metadata(config: ModelConfig, dtype: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": "phi",
        "general.file_type": FILE_TYPES[dtype],
        "general.quantization_version": 2,
        "llama.vocab_size": config.vocab_size,
        "llama.context_length": config.seq_len,
        "llama.embedding_length": config.n_embd,
        "llama.block_count": config.n_layer,
        "llama.feed_forward_length": config.n_hidden,
        "llama.attention.head_count": config.n_head,
        "llama.attention.head_count_kv": config.n_kv_head,
        "llama.attention.layer_norm_rms_epsilon": float(config.norm_eps),
        "llama.rope.dimension_count": config.head_size,
        "llama.rope.freq_base": float(config.rope_base),
    }
    if config.rope_scaling != 1:
        found |= {
            "llama.rope.scaling.type": "linear",
            "llama.rope.scaling.factor": float(config.rope_scaling),
        }
    return found


def _tokenizer_metadata(checkpoint: Checkpoint) -> dict[str, Any]:
    if checkpoint.tokenizer is None:
        raise FormatError(f"{checkpoint.path} holds no tokenizer, which the gguf format needs")
    tokenizer = Tokenizer.from_bytes(checkpoint.tokenizer)
    vocabulary = tokenizer.vocabulary
    if tokenizer.pattern != "gpt2" or vocabulary.whole_pieces_first:
        what = "whole pieces first" if tokenizer.pattern == "gpt2" else "its split pattern"
        raise FormatError(
            f"the gguf format has no place for the tokenizer's way of splitting ({what}); "
            "only GPT-2's pattern fits"
        )
    size = checkpoint.config.vocab_size
    special = {index: name for name, index in vocabulary.special.items()}
    texts, types = [], []
    for index in range(size):
        token = vocabulary.tokens[index] if index < len(vocabulary.tokens) else None
        texts.append(special.get(index) or (f"[PAD{index}]" if token is None else to_text(token)))
        types.append(CONTROL if index in special else UNUSED if token is None else NORMAL)
    ordinary = [to_text(token or b"") for token in vocabulary.tokens]
    found: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [f"{ordinary[a]} {ordinary[b]}" for a, b in vocabulary.merges],
    }
    end = vocabulary.special.get(END_OF_TEXT)
    if end is not None:
        found |= {
            "tokenizer.ggml.bos_token_id": end,
            "tokenizer.ggml.eos_token_id": end,
            "tokenizer.ggml.add_bos_token": True,
        }
    return found


def read_gguf_llama(path: str | os.PathLike[str]) -> Checkpoint:
    """The model and the tokenizer of a file. Raises FormatError for one that is not sound."""
    source = Path(path)
    metadata, tensors = read_gguf(source)
    try:
        config = config_of(source, len(tensors), _config_values(source, metadata, tensors))
        tokenizer = Tokenizer(_vocabulary(source, metadata)).to_bytes()
    except (
        KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError
    ) as error:  # fmt: skip
        raise FormatError(f"{source}: its metadata makes no sense ({error})") from None
    except TokenizerError as error:
        raise FormatError(f"{source}: its tokenizer is not sound: {error}") from None
    heads = {"q": config.n_head, "k": config.n_kv_head}
    parts = {}
    for part in part_names(config):
        value = tensors.pop(_their_name(part), None)
        if value is None:
            continue
        n_head = heads.get(part.rpartition(".")[2])
        if n_head is not None and value.ndim == 2 and value.shape[0] % (2 * n_head) == 0:
            value = pairs_to_halves(value, n_head)
        parts[part] = value
    if tensors:
        odd = min(tensors)[:80]
        raise FormatError(f"{source}: its tensor {odd} has no place in a plain Llama")
    return to_checkpoint(source, config, parts, tokenizer)


def _config_values(
    source: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Array]
) -> dict[str, Any]:
    """The fields of ModelConfig in a file's metadata."""
    architecture = metadata["general.architecture"]
    if architecture != "llama":
        raise FormatError(f"{source}: a {str(architecture)[:40]!r}; only 'llama' is read")
    of = {key.removeprefix("llama."): v for key, v in metadata.items() if key.startswith("llama.")}
    scaling = of.get("rope.scaling.type", "none")
    if scaling not in ("none", "linear") or "expert_count" in of or "rope_freqs.weight" in tensors:
        raise FormatError(f"{source}: experts, or a RoPE scaling that is not linear: not supported")
    n_head = of["attention.head_count"]
    turned = of.get("rope.dimension_count")
    if turned not in (None, of["embedding_length"] // n_head):
        raise FormatError(f"{source}: only a part of each head turns (RoPE): not supported")
    return {
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "seq_len": of["context_length"],
        "n_layer": of["block_count"],
        "n_head": n_head,
        "n_kv_head": of.get("attention.head_count_kv", n_head),
        "n_embd": of["embedding_length"],
        "n_hidden": of["feed_forward_length"],
        "tied_head": "output.weight" not in tensors,
        "rope_base": _decimal(of.get("rope.freq_base", 10_000.0)),
        "rope_scaling": _decimal(of["rope.scaling.factor"]) if scaling == "linear" else 1.0,
        "norm_eps": _decimal(of["attention.layer_norm_rms_epsilon"]),
    }


def _decimal(value: float) -> float:
    """The shortest decimal that is this float32: 1e-5 comes back as it was."""
    return float(str(np.float32(value)))


def _vocabulary(source: Path, metadata: Mapping[str, Any]) -> Vocabulary:
    model, pre = metadata["tokenizer.ggml.model"], metadata.get("tokenizer.ggml.pre")
    if model != "gpt2" or pre not in ("gpt-2", None):
        raise FormatError(
            f"{source}: its tokenizer is {str(model)[:40]!r}, {str(pre)[:40]!r}; only byte-level "
            "BPE with GPT-2's pattern is read"
        )
    texts = metadata["tokenizer.ggml.tokens"]
    types = [int(kind) for kind in metadata["tokenizer.ggml.token_type"]]
    special = {text: i for i, (text, kind) in enumerate(zip(texts, types, strict=True))
               if kind == CONTROL}  # fmt: skip
    tokens: list[bytes | None] = [
        text.encode() if kind == CONTROL else None if kind == UNUSED else to_bytes(text)
        for text, kind in zip(texts, types, strict=True)
    ]
    while tokens and tokens[-1] is None:  # the model's spare rows
        tokens.pop()
    ids = {token: i for i, token in enumerate(tokens) if token is not None and types[i] == NORMAL}
    merges = []
    for entry in metadata["tokenizer.ggml.merges"]:
        left, right = entry.split(" ")
        merges.append((ids[to_bytes(left)], ids[to_bytes(right)]))
    return Vocabulary(tokens, merges, special)
