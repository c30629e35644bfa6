"""RWKV-7's weights under their authors' names, both ways, and their .pth files read safely.

A .pth is a zip with a pickle inside, and unpickling runs what the file says. Here nothing is
unpickled: a small machine of its own follows the few opcodes that a table of tensors needs, knows
a handful of names, all inert, and refuses everything else.

    tensors = read_pth("RWKV-x070-World-0.1B.pth")
    config, parameters = from_official(tensors)
    model = build_model(config); model.parameters.assign(parameters)
    tensors = to_official(model.config, model.parameters)
"""

from __future__ import annotations

import os
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_model.config import ModelConfig
from phi_model.errors import CheckpointError
from phi_model.rwkv7.parameters import MIXES, rwkv7_parameter_shapes

__all__ = ["from_official", "read_pth", "to_official"]

Array = NDArray[Any]

# ours in a layer -> theirs; what they hold as [1, 1, C] or transposed is told below
LAYER_NAMES = {
    "time_norm.gain": "ln1.weight",
    "time_norm.bias": "ln1.bias",
    **{f"time_mix.mix_{name}": f"att.x_{name}" for name in MIXES},
    **{f"time_mix.{name}": f"att.{name}.weight" for name in ("receptance", "key", "value")},
    **{f"time_mix.{name}_bias": f"att.{name}0" for name in "wav"},
    **{f"time_mix.{name}_down": f"att.{name}1" for name in "wavg"},
    **{f"time_mix.{name}_up": f"att.{name}2" for name in "wavg"},
    **{f"time_mix.{name}": f"att.{name}" for name in ("k_k", "k_a", "r_k")},
    "time_mix.head_norm.gain": "att.ln_x.weight",
    "time_mix.head_norm.bias": "att.ln_x.bias",
    "time_mix.output": "att.output.weight",
    "channel_norm.gain": "ln2.weight",
    "channel_norm.bias": "ln2.bias",
    "channel_mix.mix_k": "ffn.x_k",
    "channel_mix.key": "ffn.key.weight",
    "channel_mix.value": "ffn.value.weight",
}
NAMES = {
    "embedding": "emb.weight",
    "embedding_norm.gain": "blocks.0.ln0.weight",
    "embedding_norm.bias": "blocks.0.ln0.bias",
    "final_norm.gain": "ln_out.weight",
    "final_norm.bias": "ln_out.bias",
    "head": "head.weight",
}


def official_name(name: str) -> str:
    """The authors' name of a parameter of ours."""
    if name in NAMES:
        return NAMES[name]
    _, layer, rest = name.split(".", 2)
    return f"blocks.{layer}.{LAYER_NAMES[rest]}"


def to_official(config: ModelConfig, parameters: Mapping[str, Array]) -> dict[str, Array]:
    """Their names -> arrays in their shapes; a tied head becomes a head of its own."""
    found = dict(parameters)
    found.setdefault("head", found["embedding"])
    tensors = {}
    for name, value in found.items():
        theirs = official_name(name)
        if name.endswith(("_down", "_up")):
            shaped = value.T  # they multiply rows by it
        elif name.endswith(".r_k"):
            shaped = value.reshape(config.n_head, config.head_size)
        elif value.ndim == 1 and not name.endswith((".gain", ".bias")):
            shaped = value.reshape(1, 1, -1)
        else:
            shaped = value
        tensors[theirs] = np.array(shaped, order="C")
    return tensors


def from_official(
    tensors: Mapping[str, Array], *, seq_len: int = 4096
) -> tuple[ModelConfig, dict[str, Array]]:
    """The config and the parameters, float32, of a table with the authors' names.

    seq_len: tokens of context it was trained on, which the table does not say. Raises
    CheckpointError for a table that is not an RWKV-7's, or one with other LoRA ranks.
    """
    try:
        n_head, head_size = tensors["blocks.0.att.r_k"].shape
        vocab_size, n_embd = tensors["emb.weight"].shape
        n_hidden = tensors["blocks.0.ffn.key.weight"].shape[0]
        n_layer = 1 + max(int(n.split(".")[1]) for n in tensors if n.startswith("blocks."))
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"these are not the weights of an RWKV-7: {error}") from error
    if n_head * head_size != n_embd:
        raise CheckpointError(f"{n_head} heads of {head_size} do not make {n_embd} channels")
    config = ModelConfig(
        kind="rwkv7",
        vocab_size=vocab_size,
        seq_len=seq_len,
        n_layer=n_layer,
        n_head=n_head,
        n_embd=n_embd,
        n_hidden=n_hidden,
        tied_head=False,
    )
    parameters = {}
    for name, shape in rwkv7_parameter_shapes(config).items():
        theirs = official_name(name)
        if theirs not in tensors:
            raise CheckpointError(f"these are not the weights of an RWKV-7: no {theirs}")
        value = tensors[theirs].T if name.endswith(("_down", "_up")) else tensors[theirs]
        if value.size != prod(shape) or (len(shape) == 2 and value.shape != shape):
            raise CheckpointError(
                f"{theirs} has shape {tensors[theirs].shape}, which fits no {shape}: "
                "its ranks are not those that this version knows"
            )
        parameters[name] = np.ascontiguousarray(value, dtype=np.float32).reshape(shape)
    return config, parameters


# --- .pth ---------------------------------------------------------------------------------------

STORAGES = {
    "torch FloatStorage": "<f4",
    "torch DoubleStorage": "<f8",
    "torch HalfStorage": "<f2",
    "torch BFloat16Storage": "bfloat16",
}
REBUILD = "torch._utils _rebuild_tensor_v2"
INERT = {*STORAGES, REBUILD, "collections OrderedDict", "torch._utils _rebuild_parameter"}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
PUSHES = {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE"}


@dataclass(frozen=True)
class _Name:
    """A name that a pickle mentions; it is never looked up."""

    text: str


@dataclass(frozen=True)
class _Mark:
    """Where a tuple or a run of items begins on the stack."""


def read_pth(path: str | os.PathLike[str]) -> dict[str, Array]:
    """name -> tensor of a .pth with one table of tensors; bfloat16 becomes float32.

    Raises CheckpointError for anything that such a table does not need, before it has any effect.
    """
    source = Path(path)
    try:
        with zipfile.ZipFile(source) as archive:
            (program,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
            folder = program.removesuffix("data.pkl")
            table = _run(archive.read(program), lambda key: archive.read(f"{folder}data/{key}"))
    except (zipfile.BadZipFile, KeyError, ValueError, IndexError, TypeError) as error:
        raise CheckpointError(f"{source} is not a .pth that can be read: {error}") from error
    if not isinstance(table, dict) or not all(isinstance(v, np.ndarray) for v in table.values()):
        raise CheckpointError(f"{source} holds something else than a table of tensors")
    return table


def _run(program: bytes, storage: Callable[[str], bytes]) -> Any:
    """What the pickle `program` leaves on its stack; raises ValueError for what is not known."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, argument, _ in pickletools.genops(program):
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in PUSHES:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else int(argument or 0)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument or 0)])
        elif name != "PROTO":
            _step(name, argument, stack, storage)
    raise ValueError("its table has no end")


def _step(name: str, argument: Any, stack: list[Any], storage: Callable[[str], bytes]) -> None:
    """The opcodes that make something of what lies on the stack."""
    if name == "EMPTY_DICT":
        stack.append({})
    elif name == "MARK":
        stack.append(_Mark())
    elif name == "GLOBAL":
        if argument not in INERT:
            raise ValueError(f"it names {argument}, which no table of tensors needs")
        stack.append(_Name(argument))
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        count = int(name[-1])
        stack[-count:] = [tuple(stack[-count:])]
    elif name == "TUPLE":
        items = _since_mark(stack)
        stack.append(tuple(items))
    elif name == "SETITEM":
        value, key = stack.pop(), stack.pop()
        stack[-1][key] = value
    elif name == "SETITEMS":
        items = _since_mark(stack)
        stack[-1].update(zip(items[::2], items[1::2], strict=True))
    elif name == "BINPERSID":
        kind, key = _storage_of(stack.pop())
        stack.append((kind, storage(key)))
    elif name == "REDUCE":
        arguments, function = stack.pop(), stack.pop()
        stack.append(_reduce(function, arguments))
    elif name == "BUILD":
        stack.pop()  # a state_dict's own metadata: nothing that weights need
    else:
        raise ValueError(f"it uses {name}, which no table of tensors needs")


def _since_mark(stack: list[Any]) -> list[Any]:
    at = max(i for i, item in enumerate(stack) if isinstance(item, _Mark))
    items = stack[at + 1 :]
    del stack[at:]
    return items


def _storage_of(identity: Any) -> tuple[str, str]:
    """numpy's name of its dtype, and the file that holds it."""
    word, kind, key = identity[:3]
    if word != "storage" or not isinstance(kind, _Name) or kind.text not in STORAGES:
        raise ValueError(f"it holds {identity[1]}, not floating-point numbers")
    return STORAGES[kind.text], str(int(key))


def _reduce(function: Any, arguments: Any) -> Any:
    if function == _Name("collections OrderedDict") and not arguments:
        return {}
    if function == _Name("torch._utils _rebuild_parameter"):
        return arguments[0]
    if function != _Name(REBUILD):
        raise ValueError(f"it calls {function}, which no table of tensors needs")
    (kind, raw), offset, shape, strides = arguments[:4]
    if kind == "bfloat16":
        flat = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    else:
        flat = np.frombuffer(raw, kind)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if min((offset, *shape, *strides)) < 0 or (prod(shape) and last >= flat.size):
        raise ValueError("a tensor reaches beyond its storage")
    view = np.lib.stride_tricks.as_strided(
        flat[offset:], shape, [step * flat.itemsize for step in strides], writeable=False
    )
    return np.array(view)
