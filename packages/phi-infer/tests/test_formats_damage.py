"""Foreign files that are damaged or hostile: one clear line, and no memory that they only claim."""

from __future__ import annotations

import json
import shutil
import struct
import tracemalloc

import numpy as np
import pytest

from phi_infer import FormatError
from phi_infer.formats import read, write
from phi_infer.formats.gguf import read_gguf, write_gguf
from phi_infer.formats.safetensors import read_safetensors, write_safetensors
from phi_model import GPT, CheckpointError, ModelConfig, save_checkpoint

FILES = {
    "safetensors": "hf/model.safetensors",
    "config": "hf/config.json",
    "gguf": "m.gguf",
    "int8": "int8.gguf",
    "llama2c": "model.bin",
    "tokenizer": "tokenizer.bin",
}
MODELS = {"config": "hf/model.safetensors", "tokenizer": "model.bin"}  # what opens such a file


@pytest.fixture(scope="module")
def sound(tmp_path_factory, tokenizer):
    """A folder with a small model in every format."""
    folder = tmp_path_factory.mktemp("sound")
    config = ModelConfig(n_embd=32, n_layer=1, n_head=2, seq_len=8, vocab_size=300, n_hidden=32)
    save_checkpoint(folder / "m.phi", GPT(config, seed=1), tokenizer=tokenizer.to_bytes())
    phi = read(folder / "m.phi")
    write(phi, folder / "hf", "safetensors")
    write(phi, folder / "m.gguf", "gguf")
    write(phi, folder / "int8.gguf", "gguf", dtype="int8")
    write(phi, folder / "model.bin", "llama2c")
    return folder


@pytest.fixture
def damaged(sound, tmp_path):
    """The same folder, to be damaged."""
    return shutil.copytree(sound, tmp_path / "damaged")


def assert_refused(path, reader=read):
    with pytest.raises((FormatError, CheckpointError)) as caught:
        reader(path)
    line = str(caught.value)
    assert str(path.parent) in line or str(path) in line
    assert "\n" not in line
    assert len(line) < 1000
    return line


def peak_bytes(action):
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", FILES)
def test_a_file_cut_short_anywhere_is_refused(kind, damaged):
    path = damaged / FILES[kind]
    opened = damaged / MODELS.get(kind, FILES[kind])
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    cuts = {*range(60), *rng.integers(0, len(content), 60).tolist(), len(content) - 9}
    # what is left of a config.json or after the last tensor's padding may still be whole
    for cut in sorted(c for c in cuts if c < len(content.rstrip())):
        path.write_bytes(content[:cut])
        assert_refused(opened)


@pytest.mark.parametrize("kind", FILES)
def test_foreign_bytes_never_crash_or_take_memory(kind, damaged):
    """Without checksums a flipped weight goes unseen; anything else is refused in one line."""
    path = damaged / FILES[kind]
    opened = damaged / MODELS.get(kind, FILES[kind])
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    head = 40 if kind == "llama2c" else min(len(content), 12_000)  # then weights begin
    total = sum(file.stat().st_size for file in damaged.rglob("*") if file.is_file())
    lines = []

    def attempt():
        try:
            read(opened)
        except (FormatError, CheckpointError) as error:
            lines.append(str(error))

    for turn in range(150):
        changed = bytearray(content)
        if turn % 2:
            changed[rng.integers(0, head)] ^= 1 << rng.integers(8)
        else:
            start, length = rng.integers(0, head), rng.integers(1, 30)
            changed[start : start + length] = rng.bytes(length)
        path.write_bytes(changed)
        if turn % 15:
            attempt()
        else:
            assert peak_bytes(attempt) < 8 * total + 2_000_000
    assert len(lines) > 10
    assert not any("\n" in line for line in lines)


@pytest.mark.parametrize("content", [b"", b"\0", b"Once upon a time " * 9, b"GGUF", b"{}" * 40])
@pytest.mark.parametrize("name", ["x.gguf", "x.bin", "x.safetensors", "x.phi", "x"])
def test_other_files_are_refused(content, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert_refused(tmp_path / name)


def test_an_empty_folder_is_refused(tmp_path):
    assert "folder without a config.json" in assert_refused(tmp_path / ".")


# --- safetensors --------------------------------------------------------------------------------


def with_header(header, data=bytes(64)):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


ONE = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"a": ONE, "b": ONE}, "overlap"),
        ({"a": ONE, "b": ONE | {"data_offsets": [8, 24]}}, "overlap"),
        ({"a": ONE, "b": ONE | {"data_offsets": [20, 36]}}, "gap"),
        ({"a": ONE}, "bytes follow"),
        ({"a": ONE | {"dtype": "F8"}}, "makes no sense"),
        ({"a": ONE | {"dtype": ["F32"]}}, "makes no sense"),
        ({"a": ONE | {"shape": [2**62, 2**62]}}, "makes no sense"),
        ({"a": ONE | {"shape": [-4]}}, "makes no sense"),
        ({"a": ONE | {"shape": [4.0]}}, "makes no sense"),
        ({"a": ONE | {"shape": [True] * 70}}, "makes no sense"),
        ({"a": ONE | {"shape": [1] * 70, "data_offsets": [0, 4]}}, "makes no sense"),
        ({"a": ONE | {"shape": 4}}, "makes no sense"),
        ({"a": ONE | {"shape": [5]}}, "makes no sense"),
        ({"a": ONE | {"data_offsets": [0, 2**70]}}, "makes no sense"),
        ({"a": ONE | {"data_offsets": [16, 0]}}, "makes no sense"),
        ({"a": ONE | {"data_offsets": [0]}}, "makes no sense"),
        ({"a": None}, "makes no sense"),
        ({"__metadata__": 7}, "no table"),
        (b"[1, 2]", "no table"),
        (b'{"a": 1, "a": 2}', "there twice"),
        (b"[" * 50_000, "damaged"),
        (b'{"a": 1' + b"0" * 9000 + b"}", "damaged"),
        (b"\xff\xfe{}", "damaged"),
    ],
)
def test_hostile_safetensors(header, words, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(with_header(header))

    def attempt():
        assert words in assert_refused(path, read_safetensors)

    assert peak_bytes(attempt) < 1_000_000


@pytest.mark.parametrize("claim", [2**63, 2**40, 100_000_001, 4096])
def test_a_huge_header_of_safetensors(claim, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(claim.to_bytes(8, "little") + b"{}" + bytes(64))
    assert peak_bytes(lambda: assert_refused(path, read_safetensors)) < 1_000_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_hidden_layers", 10**9), ("num_hidden_layers", 0), ("vocab_size", 10**15),
        ("vocab_size", "300"), ("hidden_size", -32), ("num_attention_heads", 0),
        ("num_attention_heads", None), ("rms_norm_eps", "x"), ("rms_norm_eps", float("nan")),
        ("model_type", "mistral"), ("attention_bias", True), ("hidden_act", "gelu"),
        ("rope_parameters", {"rope_type": "yarn"}), ("rope_parameters", [1]), ("head_dim", 7),
        ("rope_parameters", {"rope_type": "linear"}), ("tie_word_embeddings", "yes"),
        ("tie_word_embeddings", False), ("intermediate_size", 33), ("num_key_value_heads", 3),
    ],
)  # fmt: skip
def test_a_config_that_makes_no_sense(field, value, damaged):
    path = damaged / "hf" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    assert peak_bytes(lambda: assert_refused(damaged / "hf")) < 2_000_000


def test_tensors_too_many_or_of_other_shapes(damaged):
    path = damaged / "hf" / "model.safetensors"
    tensors, _ = read_safetensors(path)
    copies = {name: value.copy() for name, value in tensors.items()}
    write_safetensors(path, copies | {"model.layers.0.self_attn.q_proj.bias": np.ones(32, "f4")})
    assert "q_proj.bias" in assert_refused(damaged / "hf")
    write_safetensors(path, copies | {"model.norm.weight": np.ones(16, "f4")})
    assert "final_norm has shape [16], not [32]" in assert_refused(damaged / "hf")
    del copies["model.norm.weight"]
    write_safetensors(path, copies | {"model.rotary_emb.inv_freq": np.ones(1, "f4")})
    assert "final_norm is missing" in assert_refused(damaged / "hf")


# --- gguf ---------------------------------------------------------------------------------------


def text(value):
    return struct.pack("<Q", len(value)) + value


def gguf_file(*, tensors=1, entries=0, pairs=b"", table=b"", data=bytes(64), version=3):
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + pairs + table
    return head + bytes(-len(head) % 32) + data


def entry(name=b"a", shape=(4,), kind=0, offset=0):
    return (text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
            + struct.pack("<IQ", kind, offset))  # fmt: skip


def pair(kind, value, key=b"k"):
    return {"entries": 1, "pairs": text(key) + struct.pack("<I", kind) + value}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"version": 1, "table": entry()}, "version 1"),
        ({"tensors": 2**60}, "cut short"),
        ({"entries": 2**60}, "cut short"),
        ({"table": struct.pack("<Q", 2**63) + bytes(40)}, "cut short"),
        ({"table": entry(shape=(2**62, 2**62))}, "cut short"),
        ({"table": entry(shape=(100,))}, "cut short"),
        ({"table": entry(shape=(1,) * 5)}, "5 dimensions"),
        ({"table": entry(kind=2)}, "type 2"),
        ({"table": entry(kind=8, shape=(31,))}, "no blocks of 32"),
        ({"table": entry(kind=8, shape=())}, "no blocks of 32"),
        ({"table": entry(offset=2**63)}, "cut short"),
        ({"table": entry(offset=4)}, "misplaced"),
        ({"tensors": 2, "table": entry() + entry(offset=32)}, "twice"),
        ({"tensors": 2, "table": entry() + entry(b"b")}, "overlap"),
        ({"tensors": 2, "table": entry(shape=(12,)) + entry(b"b", offset=32)}, "overlap"),
        ({"table": entry(b"\xff")}, "not UTF-8"),
        (pair(99, b"") | {"table": entry()}, "unknown type 99"),
        (pair(9, struct.pack("<IQ", 4, 2**61)) | {"table": entry()}, "cut short"),
        (pair(9, struct.pack("<IQ", 8, 2**61)) | {"table": entry()}, "cut short"),
        (pair(9, struct.pack("<IQ", 9, 1) * 9) | {"table": entry()}, "unknown type 9"),
        (pair(8, struct.pack("<Q", 2**63)) | {"table": entry()}, "cut short"),
        (pair(4, struct.pack("<I", 0), b"general.alignment") | {"table": entry()}, "alignment"),
        (pair(8, text(b"x"), b"general.alignment") | {"table": entry()}, "alignment"),
    ],
)
def test_hostile_gguf(parts, words, tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf_file(**parts))

    def attempt():
        assert words in assert_refused(path, read_gguf)

    assert peak_bytes(attempt) < 1_000_000


def test_a_plain_gguf_by_hand_is_read(tmp_path):
    """The helper above makes files that are sound when nothing is wrong with them."""
    data = np.arange(4, dtype="<f4").tobytes() + bytes(48)
    parts = pair(4, struct.pack("<I", 7)) | {"table": entry(), "data": data}
    (tmp_path / "x.gguf").write_bytes(gguf_file(**parts))
    metadata, tensors = read_gguf(tmp_path / "x.gguf")
    assert metadata == {"k": 7}
    assert tensors["a"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "changes",
    [
        {"llama.block_count": 10**9}, {"llama.block_count": "1"}, {"llama.block_count": 2},
        {"llama.embedding_length": 31}, {"llama.attention.head_count": 0},
        {"llama.attention.head_count": [1, 2]}, {"general.architecture": "gpt2"},
        {"tokenizer.ggml.model": "llama"}, {"tokenizer.ggml.pre": "llama-bpe"},
        {"tokenizer.ggml.tokens": 7}, {"tokenizer.ggml.tokens": ["a"] * 300},
        {"tokenizer.ggml.tokens": [1, 2]}, {"tokenizer.ggml.token_type": [1]},
        {"tokenizer.ggml.merges": ["a"]}, {"tokenizer.ggml.merges": ["zz zz"]},
        {"llama.rope.scaling.type": "yarn"}, {"llama.rope.dimension_count": 8},
        {"llama.rope.freq_base": -1.0}, {"llama.attention.layer_norm_rms_epsilon": "x"},
    ],
)  # fmt: skip
def test_gguf_metadata_that_makes_no_sense(changes, damaged):
    path = damaged / "m.gguf"
    metadata, tensors = read_gguf(path)
    plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in metadata.items()}
    write_gguf(path, plain, {name: value.copy() for name, value in tensors.items()})
    read(path)
    write_gguf(path, plain | changes, {name: value.copy() for name, value in tensors.items()})
    assert peak_bytes(lambda: assert_refused(path)) < 3_000_000
    for missing in plain.keys() & changes.keys():
        less = {k: v for k, v in plain.items() if k != missing}
        write_gguf(path, less, {name: value.copy() for name, value in tensors.items()})
        if missing not in ("llama.rope.freq_base", "tokenizer.ggml.pre",
                           "llama.rope.dimension_count"):  # fmt: skip
            assert_refused(path)


# --- llama2.c -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize("value", [0, -1, 2**31 - 1, -(2**31), 1])
def test_a_llama2c_header_that_makes_no_sense(place, value, damaged):
    path = damaged / "model.bin"
    content = bytearray(path.read_bytes())
    if struct.unpack_from("<i", content, 4 * place)[0] == value:
        return  # one layer is what it has
    struct.pack_into("<i", content, 4 * place, value)
    path.write_bytes(content)
    assert peak_bytes(lambda: assert_refused(path)) < 1_000_000


def test_tokens_that_make_no_vocabulary(damaged):
    path = damaged / "tokenizer.bin"
    content = path.read_bytes()
    for claim in (-1, 2**31 - 1, 10**6):
        path.write_bytes(content[:8] + struct.pack("<i", claim) + content[12:])
        assert_refused(damaged / "model.bin")
    path.write_bytes(content + struct.pack("<fi", 0, 1) + b"x")
    assert "more tokens than the model" in assert_refused(damaged / "model.bin")
    path.write_bytes(content.replace(struct.pack("<fi", 0, 1) + b"A",
                                     struct.pack("<fi", 0, 1) + b"B"))  # fmt: skip
    assert "no byte-level BPE" in assert_refused(damaged / "model.bin")
    path.write_bytes(content.replace(b"<|endoftext|>", b"\xff|endoftext|>"))
    assert "no byte-level BPE" in assert_refused(damaged / "model.bin")
