"""A folder in Hugging Face's Llama layout, which transformers loads as LlamaForCausalLM.

    config.json, generation_config.json      the shape, and how texts begin and end
    model.safetensors                        the weights
    tokenizer.json, tokenizer_config.json    the tokenizer

Read and written: Llama models without biases, RoPE plain or scaled linearly, one weights file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from phi_infer.errors import FormatError
from phi_infer.formats.llama import LAYER_PARTS, need_llama, part_names, split
from phi_infer.formats.model import as_dtype, config_of, to_checkpoint
from phi_infer.formats.safetensors import read_safetensors, write_safetensors
from phi_model import Checkpoint, ModelConfig
from phi_model.files import atomic_write
from phi_tokenizer import Tokenizer

__all__ = ["read_huggingface", "write_huggingface"]

END_OF_TEXT = "<|endoftext|>"
NAMES = {"embedding": "model.embed_tokens", "final_norm": "model.norm", "head": "lm_head"}
LAYER_NAMES = dict(
    zip(
        LAYER_PARTS,
        (
            "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
            "self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj",
            "mlp.down_proj",
        ),
        strict=True,
    )
)  # fmt: skip


def _their_name(part: str) -> str:
    if part in NAMES:
        return f"{NAMES[part]}.weight"
    layer, _, name = part.rpartition(".")
    return f"model.{layer}.{LAYER_NAMES[name]}.weight"


def write_huggingface(
    checkpoint: Checkpoint, folder: str | os.PathLike[str], *, dtype: str = "float32"
) -> list[Path]:
    """Writes the folder; returns its files. dtype: float32 or float16.

    Raises FormatError for a model that is no Llama (RWKV-7, QK-norm), OSError.
    """
    config, target = checkpoint.config, Path(folder)
    need_llama(config, "safetensors")
    if dtype == "int8":
        raise FormatError("the safetensors format has no int8 Llama; use float16, or --to gguf")
    parts = split(config, checkpoint.parameters)
    tensors = {_their_name(name): as_dtype(name, value, dtype) for name, value in parts.items()}
    tokenizer = checkpoint.tokenizer
    end = _end_token(tokenizer)
    target.mkdir(parents=True, exist_ok=True)
    documents: dict[str, Any] = {
        "config.json": _config_json(config, dtype, end),
        "generation_config.json": {"bos_token_id": end, "eos_token_id": end},
    }
    if tokenizer is not None:
        token = None if end is None else END_OF_TEXT
        documents["tokenizer_config.json"] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": token,
            "eos_token": token,
            "clean_up_tokenization_spaces": False,
            "model_max_length": config.seq_len,
        }
    files = [target / "model.safetensors", *(target / name for name in documents)]
    write_safetensors(files[0], tensors, metadata={"format": "pt"})
    for path, document in zip(files[1:], documents.values(), strict=True):
        with atomic_write(path) as file:
            file.write(json.dumps(document, indent=2).encode() + b"\n")
    if tokenizer is not None:
        files.append(target / "tokenizer.json")
        with atomic_write(files[-1]) as file:
            file.write(tokenizer)
    return files


def _end_token(tokenizer: bytes | None) -> int | None:
    if tokenizer is None:
        return None
    return Tokenizer.from_bytes(tokenizer).special_tokens.get(END_OF_TEXT)


def _config_json(config: ModelConfig, dtype: str, end: int | None) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_base}
    scaling = None
    if config.rope_scaling != 1:
        rope |= {"rope_type": "linear", "factor": config.rope_scaling}
        scaling = {"rope_type": "linear", "factor": config.rope_scaling}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.n_embd,
        "intermediate_size": config.n_hidden,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "head_dim": config.head_size,
        "max_position_embeddings": config.seq_len,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": rope,  # transformers 5
        "rope_theta": config.rope_base,  # and before
        "rope_scaling": scaling,
        "tie_word_embeddings": config.tied_head,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": end,
        "eos_token_id": end,
        "torch_dtype": dtype,
        "dtype": dtype,
    }


def read_huggingface(folder: str | os.PathLike[str]) -> Checkpoint:
    """The model in a folder. Raises FormatError for one that is not sound or no plain Llama."""
    source = Path(folder)
    if not (source / "config.json").is_file():
        raise FormatError(
            f"{source} is a folder without a config.json; name a .phi file, or a folder in "
            "Hugging Face's layout"
        )
    if (source / "model.safetensors.index.json").exists():
        raise FormatError(f"{source}: weights in several files are not supported; join them")
    tensors, _ = read_safetensors(source / "model.safetensors")
    config = config_of(source, len(tensors), _config_values(source / "config.json"))
    parts = {
        name: tensors[_their_name(name)]
        for name in part_names(config)
        if _their_name(name) in tensors
    }
    known = {_their_name(name) for name in parts} | {_their_name("head")}
    odd = sorted(name for name in set(tensors) - known if "rotary_emb" not in name)
    if odd:
        raise FormatError(f"{source}: its tensor {odd[0][:80]} has no place in a plain Llama")
    tokenizer = source / "tokenizer.json"
    content = tokenizer.read_bytes() if tokenizer.is_file() else None
    return to_checkpoint(source, config, parts, content)


def _config_values(path: Path) -> dict[str, Any]:
    """The fields of ModelConfig in a config.json."""
    try:
        found = json.loads(path.read_bytes())
        kind = found["model_type"]
        if kind != "llama":
            raise FormatError(f"{path}: a model of type {str(kind)[:40]!r}; only 'llama' is read")
        rope = found.get("rope_parameters") or found.get("rope_scaling") or {}
        scaling = rope.get("rope_type", rope.get("type", "default"))
        odd = {
            "attention_bias": found.get("attention_bias", False),
            "mlp_bias": found.get("mlp_bias", False),
            "hidden_act": found.get("hidden_act", "silu") != "silu",
            "rope_scaling": scaling not in ("default", "linear"),
            "head_dim": (found.get("head_dim") or found["hidden_size"] // found[
                "num_attention_heads"]) * found["num_attention_heads"] != found["hidden_size"],
        }  # fmt: skip
        for name, is_odd in odd.items():
            if is_odd:
                value = str(found.get(name))[:60]
                raise FormatError(f"{path}: {name} is {value}, which is not supported")
        return {
            "vocab_size": found["vocab_size"],
            "seq_len": found["max_position_embeddings"],
            "n_layer": found["num_hidden_layers"],
            "n_head": found["num_attention_heads"],
            "n_kv_head": found.get("num_key_value_heads") or found["num_attention_heads"],
            "n_embd": found["hidden_size"],
            "n_hidden": found["intermediate_size"],
            "tied_head": found.get("tie_word_embeddings", False),
            "rope_base": float(rope.get("rope_theta", found.get("rope_theta", 10_000.0))),
            "rope_scaling": float(rope["factor"]) if scaling == "linear" else 1.0,
            "norm_eps": found["rms_norm_eps"],
        }
    except (
        KeyError, TypeError, ValueError, AttributeError, RecursionError, ArithmeticError
    ) as error:  # fmt: skip
        raise FormatError(f"{path} is not the config of a Llama ({error})") from None
