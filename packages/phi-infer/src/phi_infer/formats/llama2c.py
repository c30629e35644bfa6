"""llama2.c's model.bin (its version 0) with the tokenizer.bin beside it, as run.c maps them.

    int32 * 7    width, hidden width, layers, heads, heads of keys, vocabulary, context;
                 a negative vocabulary means that the head is a matrix of its own
    float32      embedding; then of all layers: attention norms, q, k, v, out, MLP norms, gate,
                 down, up; the final norm; two tables that run.c skips; the head if it is apart

run.c starts every text with id 1 and stops at it, and gives byte b of an unknown character the id
3 + b. So ids are exchanged: `<|endoftext|>` becomes 1 and the bytes 3 to 258. Rows of ids
without a token are left out. run.c's own encoding of a prompt knows no split pattern and puts a
space in front: its ids may differ from the tokenizer's; and it shows no lone byte that is not
ASCII, so that characters made of single bytes stay invisible.
"""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.errors import FormatError
from phi_infer.formats.llama import (
    halves_to_pairs,
    need_llama,
    pairs_to_halves,
    part_shapes,
    split,
)
from phi_infer.formats.mapped import Cursor, map_file
from phi_infer.formats.model import as_dtype, to_checkpoint
from phi_model import Checkpoint, ConfigError, ModelConfig
from phi_model.files import atomic_write
from phi_tokenizer import Tokenizer, TokenizerError
from phi_tokenizer.formats.tiktoken import from_tiktoken
from phi_tokenizer.vocabulary import Vocabulary

__all__ = ["looks_like_llama2c", "read_llama2c", "write_llama2c"]

Array = NDArray[Any]

END_OF_TEXT = "<|endoftext|>"
TOKENIZER = "tokenizer.bin"
HEADER = struct.Struct("<7i")
FIXED: dict[str, Any] = {
    "rope_base": 10_000.0,
    "rope_scaling": 1.0,
    "norm_eps": 1e-5,
}  # in run.c's code
END_ID, FIRST_BYTE_ID = 1, 3
ORDER = ("attention_norm", "q", "k", "v", "out", "mlp_norm", "gate", "down", "up")
MAX_TOKEN_BYTES = 1 << 20


def _sequence(config: ModelConfig) -> Iterator[str]:
    """The parts in the file's order; "" stands for the two tables."""
    yield "embedding"
    for part in ORDER:
        yield from (f"layers.{i}.{part}" for i in range(config.n_layer))
    yield from ("final_norm", "")
    if not config.tied_head:
        yield "head"


def _table_floats(config: ModelConfig) -> int:
    return config.seq_len * (config.head_size // 2) * 2


# --- writing ------------------------------------------------------------------------------------


def write_llama2c(
    checkpoint: Checkpoint, path: str | os.PathLike[str], *, dtype: str = "float32"
) -> list[Path]:
    """Writes the model and tokenizer.bin beside it; returns both paths. dtype: float32 only.

    Raises FormatError for what the format cannot hold (RWKV-7, QK-norm, another RoPE base or
    scaling or norm_eps than run.c's, another split pattern than GPT-2's), OSError.
    """
    config, target = checkpoint.config, Path(path)
    need_llama(config, "llama2c")
    if target.name == TOKENIZER:
        raise FormatError(f"{target} is the tokenizer's name; call the model model.bin")
    if dtype != "float32":
        raise FormatError(f"the llama2c format holds float32, not {dtype}")
    for name, fixed in FIXED.items():
        if getattr(config, name) != fixed:
            raise FormatError(
                f"the llama2c format has no place for {name} {getattr(config, name):g}: "
                f"run.c's is {fixed:g}"
            )
    if checkpoint.tokenizer is None:
        raise FormatError(f"{checkpoint.path} holds no tokenizer, which llama2.c needs")
    vocabulary = Tokenizer.from_bytes(checkpoint.tokenizer).vocabulary
    if len(vocabulary.tokens) > config.vocab_size:
        raise FormatError(f"{checkpoint.path}: its tokenizer has more tokens than its model")
    order = _order(vocabulary)
    exchanged = _exchange(vocabulary, order)
    tokenizer_bin = _pack_tokenizer(exchanged)
    if _unpack_tokenizer(memoryview(tokenizer_bin), target, len(order)) != exchanged:
        raise FormatError(
            "a tokenizer.bin has no place for this tokenizer's split pattern, its merges or the "
            "ids of its special tokens: they would not come back"
        )
    _refuse_another(target, tokenizer_bin)
    parts = split(config, checkpoint.parameters)
    with atomic_write(target) as file:
        size = len(order) if config.tied_head else -len(order)
        file.write(
            HEADER.pack(
                config.n_embd, config.n_hidden, config.n_layer, config.n_head, config.n_kv_head,
                size, config.seq_len,
            )
        )  # fmt: skip
        for name in _sequence(config):
            value: Array = parts[name] if name else np.zeros(_table_floats(config))
            part = name.rpartition(".")[2]
            if part in ("q", "k"):
                value = halves_to_pairs(value, config.n_head if part == "q" else config.n_kv_head)
            elif part in ("embedding", "head"):
                value = value[order]
            file.write(as_dtype(name, value, "float32").tobytes())
    with atomic_write(target.with_name(TOKENIZER)) as file:
        file.write(tokenizer_bin)
    return [target, target.with_name(TOKENIZER)]


def _order(vocabulary: Vocabulary) -> list[int]:
    """For each id of the file the id here; holes of the vocabulary are left out."""
    if END_OF_TEXT not in vocabulary.special:
        raise FormatError(
            f"llama2.c starts and ends texts with id 1: the tokenizer needs {END_OF_TEXT}"
        )
    end = vocabulary.special[END_OF_TEXT]
    single = [vocabulary.ids[bytes([byte])] for byte in range(256)]
    taken = {end, *single}
    rest = [i for i, t in enumerate(vocabulary.tokens) if t is not None and i not in taken]
    if len(rest) < FIRST_BYTE_ID - 1:  # too few for the places before the bytes
        return [*single[:1], end, *single[1:], *rest]
    return [rest[0], end, rest[1], *single, *rest[2:]]


def _exchange(vocabulary: Vocabulary, order: list[int]) -> Vocabulary:
    place = {old: new for new, old in enumerate(order)}
    return replace(
        vocabulary,
        tokens=[vocabulary.tokens[old] for old in order],
        merges=[(place[a], place[b]) for a, b in vocabulary.merges],
        special={name: place[old] for name, old in vocabulary.special.items()},
    )


def _pack_tokenizer(vocabulary: Vocabulary) -> bytes:
    """int32 the longest token's bytes; then of each float32 score, int32 bytes, the bytes.

    The score is minus the rank of the merge, so that the earliest merge scores best.
    """
    ranks = {index: rank for rank, index in reversed(list(enumerate(vocabulary.merged)))}
    tokens = [token or b"" for token in vocabulary.tokens]
    out = [struct.pack("<i", max(map(len, tokens)))]
    for index, token in enumerate(tokens):
        score = -float(ranks[index] + 1) if index in ranks else 0.0
        out += (struct.pack("<fi", score, len(token)), token)
    return b"".join(out)


# --- reading ------------------------------------------------------------------------------------


def looks_like_llama2c(start: bytes, size: int) -> bool:
    """Whether a file of `size` bytes that begins like this is one: its size must fit exactly."""
    if len(start) < HEADER.size:
        return False
    config = _config(start)
    return config is not None and size == _file_bytes(config)


def _config(start: bytes) -> ModelConfig | None:
    n_embd, n_hidden, n_layer, n_head, n_kv_head, vocab_size, seq_len = HEADER.unpack_from(start)
    try:
        return ModelConfig(
            n_embd=n_embd,
            n_hidden=n_hidden or -1,
            n_layer=n_layer,
            n_head=n_head,
            n_kv_head=n_kv_head or -1,
            vocab_size=abs(vocab_size),
            seq_len=seq_len,
            tied_head=vocab_size > 0,
            **FIXED,
        )
    except ConfigError:
        return None


def _file_bytes(config: ModelConfig) -> int:
    return HEADER.size + 4 * (config.n_parameters + _table_floats(config))


def read_llama2c(path: str | os.PathLike[str]) -> Checkpoint:
    """The model of a file and the tokenizer.bin beside it.

    Raises FormatError for files that are not sound, or whose tokenizer is no byte-level BPE.
    """
    source = Path(path)
    content = map_file(source)
    cursor = Cursor(content, source)
    config = _config(bytes(cursor.bytes(HEADER.size)))
    if config is None or len(content) != _file_bytes(config):
        raise FormatError(
            f"{source} is no llama2.c model, or cut short: its size does not fit its header"
        )
    shapes, parts = part_shapes(config), {}
    for name in _sequence(config):
        if not name:
            cursor.bytes(4 * _table_floats(config))
            continue
        data = cursor.bytes(4 * prod(shapes[name]))
        value: Array = np.frombuffer(data, "<f4").reshape(shapes[name])
        part = name.rpartition(".")[2]
        if part in ("q", "k"):
            value = pairs_to_halves(value, config.n_head if part == "q" else config.n_kv_head)
        parts[name] = value
    beside = source.with_name(TOKENIZER)
    if not beside.is_file():
        raise FormatError(f"{source}: there is no tokenizer.bin beside it; copy it there")
    vocabulary = _unpack_tokenizer(map_file(beside), beside, config.vocab_size)
    return to_checkpoint(source, config, parts, Tokenizer(vocabulary).to_bytes())


def _refuse_another(target: Path, tokenizer_bin: bytes) -> None:
    """A model beside `target` reads the same tokenizer.bin, which must not change under it."""
    beside = target.with_name(TOKENIZER)
    others = [p for p in target.parent.glob("*.bin") if p.name not in (target.name, TOKENIZER)]
    if others and beside.is_file() and beside.read_bytes() != tokenizer_bin:
        raise FormatError(
            f"{beside} is the tokenizer of {others[0].name}, and another one: give this model a "
            "folder of its own"
        )


def _unpack_tokenizer(content: memoryview, path: Path, size: int) -> Vocabulary:
    """The vocabulary of a tokenizer.bin with `size` tokens.

    A token of several bytes without a score is a special one; merges follow from the scores, as
    in a .tiktoken file, since each token is made of two that score better.
    """
    cursor = Cursor(content, path)
    cursor.number("i")
    tokens, scores = [], []
    for _ in range(size):
        scores.append(float(cursor.number("f")))
        tokens.append(bytes(cursor.bytes(min(cursor.count("i"), MAX_TOKEN_BYTES))))
    if cursor.left:
        raise FormatError(f"{path}: it has more tokens than the model beside it ({size})")
    try:
        special = {
            token.decode(): index
            for index, token in enumerate(tokens)
            if scores[index] == 0 and len(token) > 1
        }
        ordinary = [index for index in range(size) if index not in set(special.values())]
        ranked = sorted(ordinary, key=lambda index: (-scores[index], index))
        lines = [b"%s %d" % (base64.b64encode(tokens[i]), rank) for rank, i in enumerate(ranked)]
        found = from_tiktoken(b"\n".join(lines))
        return Vocabulary(
            tokens,
            [(ranked[a], ranked[b]) for a, b in found.merges],
            special,
            whole_pieces_first=found.whole_pieces_first,
        )
    except (TokenizerError, ValueError) as error:
        raise FormatError(f"{path} is no byte-level BPE: {error}") from None
