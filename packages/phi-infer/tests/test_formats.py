"""Conversions: what is written comes back, and means the same to a plain reader of the format."""

from __future__ import annotations

import itertools
import json
import struct
from types import SimpleNamespace

import numpy as np
import pytest

from phi_infer import FormatError, ModelError, load
from phi_infer.formats import DTYPES, FORMATS, read, write
from phi_infer.formats.gguf import read_gguf
from phi_infer.formats.llama import halves_to_pairs, pairs_to_halves
from phi_infer.formats.q8_0 import dequantize, quantize
from phi_infer.formats.safetensors import read_safetensors
from phi_model import CheckpointError, save_checkpoint
from phi_tokenizer import Tokenizer

CHOICES = {
    "plain": {},
    "shared keys, wide": {"n_embd": 64, "n_head": 4, "n_kv_head": 2, "n_hidden": 96},
    "untied, spare rows": {"tied_head": False, "vocab_size": 310},
}
SCALED = {"rope_scaling": 2.5, "rope_base": 500.0, "norm_eps": 1e-3}
PROMPT = "Der Bär süßt Öl für 日本語 und 😀!"
NAMES = {"phi": "new.phi", "safetensors": "hf", "gguf": "m.gguf", "llama2c": "model.bin"}


@pytest.fixture
def make_phi(tmp_path, tokenizer, make_model):
    def make(seed=3, *, tokenizer=tokenizer, **config):
        path = tmp_path / "model.phi"
        model = make_model(seed, **({"seq_len": 64} | config))
        save_checkpoint(path, model, tokenizer=tokenizer.to_bytes() if tokenizer else None)
        return read(path)

    return make


def table(checkpoint, old=None):
    """name -> float32 parameter, rows of ids in the order `old`."""
    found = {name: np.asarray(v, np.float32) for name, v in checkpoint.parameters.items()}
    if old is not None:
        found |= {name: found[name][old] for name in ("embedding", "head") if name in found}
    return found


# --- there and back -----------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["phi", "safetensors", "gguf"])
@pytest.mark.parametrize("config", [*CHOICES.values(), SCALED], ids=[*CHOICES, "scaled"])
def test_float32_comes_back_bit_by_bit(to, config, make_phi, tmp_path):
    phi = make_phi(**config)
    files = write(phi, tmp_path / NAMES[to], to)
    assert all(file.is_file() for file in files)
    again = read(tmp_path / NAMES[to])
    assert again.config == phi.config
    assert again.tokenizer == phi.tokenizer
    expected, found = table(phi), table(again)
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("config", CHOICES.values(), ids=CHOICES)
def test_llama2c_comes_back_with_its_ids_exchanged(config, make_phi, tmp_path, tokenizer):
    phi = make_phi(**config)
    write(phi, tmp_path / "model.bin", "llama2c")
    again = read(tmp_path / "model.bin")
    exchanged = Tokenizer.from_bytes(again.tokenizer)
    assert exchanged.eot_token == 1
    assert [exchanged.token_bytes(3 + b) for b in range(256)] == [bytes([b]) for b in range(256)]
    assert exchanged.encode(PROMPT) != tokenizer.encode(PROMPT)
    pieces = [tokenizer.token_bytes(i) for i in tokenizer.encode(PROMPT)]
    assert [exchanged.token_bytes(i) for i in exchanged.encode(PROMPT)] == pieces
    encode = tokenizer.encode_single_token
    old = [
        tokenizer.eot_token if i == 1 else encode(exchanged.token_bytes(i))
        for i in range(tokenizer.n_vocab)
    ]
    expected, found = table(phi, old), table(again)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize(("to", "dtype"), [("phi", "float16"), ("safetensors", "float16"),
                                           ("gguf", "float16"), ("gguf", "int8")])  # fmt: skip
@pytest.mark.parametrize("config", CHOICES.values(), ids=CHOICES)
def test_small_storage_is_near_and_smaller(to, dtype, config, make_phi, tmp_path):
    phi = make_phi(**config)
    write(phi, tmp_path / NAMES[to], to, dtype=dtype)
    again = read(tmp_path / NAMES[to])
    for name, value in table(phi).items():
        found = table(again)[name]
        step = 2.0**-11 if dtype == "float16" or value.shape[-1] % 32 else 0.5 / 127 + 2.0**-11
        block = np.abs(value).max() if step > 2.0**-11 else np.abs(value) + 2.0**-14
        assert (np.abs(found - value) <= step * block).all(), name
    size = {"float16": 2, "int8": 2 if phi.config.n_embd == 16 else 1.1}[dtype]
    file = tmp_path / NAMES[to]
    weights = file / "model.safetensors" if file.is_dir() else file
    assert weights.stat().st_size < size * phi.config.n_parameters + 20_000
    ids = [[1, 2, 3]]
    assert np.abs(again.model.logits(ids) - phi.model.logits(ids)).max() < 0.5


def test_int8_in_a_phi_has_a_scale_for_each_row(make_phi, tmp_path):
    phi = make_phi()
    phi.tensors["model/layers.0.attention.out"] = phi.parameters["layers.0.attention.out"].copy()
    phi.tensors["model/layers.0.attention.out"][3] = 0
    write(phi, tmp_path / "small.phi", "phi", dtype="int8")
    small = read(tmp_path / "small.phi")
    assert (tmp_path / "small.phi").stat().st_size < 0.45 * phi.path.stat().st_size
    for name, value in table(phi).items():
        found = small.parameters[name]
        assert found.dtype == np.float32
        if value.ndim == 1:
            np.testing.assert_array_equal(found, value)
            continue
        assert small.tensors[f"model/{name}"].dtype == np.int8
        largest = np.abs(value).max(axis=1, keepdims=True)
        assert (np.abs(found - value) <= 0.5001 / 127 * largest).all()
    del small.tensors["scale/embedding"]
    write_as_it_is(tmp_path / "odd.phi", small)
    with pytest.raises(CheckpointError, match="embedding is int8 without scales"):
        read(tmp_path / "odd.phi")


def write_as_it_is(path, checkpoint):
    stored = {n.removeprefix("model/"): v for n, v in checkpoint.tensors.items() if "model/" in n}
    rest = {name: value for name, value in checkpoint.tensors.items() if "model/" not in name}
    save_checkpoint(path, SimpleNamespace(config=checkpoint.config, parameters=stored),
                    tensors=rest)  # fmt: skip


def test_half_becomes_float32_again(make_phi, tmp_path):
    write(make_phi(), tmp_path / "half.phi", "phi", dtype="float16")
    half = read(tmp_path / "half.phi")
    assert {v.dtype for v in half.parameters.values()} == {np.dtype("f2")}
    for to in FORMATS:
        write(half, tmp_path / NAMES[to], to)
        again = read(tmp_path / NAMES[to])
        if to != "llama2c":
            for name, value in table(half).items():
                np.testing.assert_array_equal(again.parameters[name], value)


def test_bytes_only_and_conversions_in_a_row(make_phi, byte_tokenizer, tmp_path):
    """257 tokens leave no two for the places before llama2.c's bytes."""
    phi = make_phi(vocab_size=257, tokenizer=byte_tokenizer)
    write(phi, tmp_path / "model.bin", "llama2c")
    write(read(tmp_path / "model.bin"), tmp_path / "m.gguf", "gguf")
    write(read(tmp_path / "m.gguf"), tmp_path / "hf", "safetensors")
    write(read(tmp_path / "hf"), tmp_path / "new.phi", "phi")
    found = [load(tmp_path / name) for name in ("model.phi", "model.bin", "new.phi")]
    texts = [one.generate("Bär", max_tokens=40, temperature=0) for one in found]
    assert len(set(texts)) == 1
    assert len(texts[0]) > 5


@pytest.mark.parametrize("to", FORMATS)
def test_a_converted_file_generates_the_same_greedy_text(to, make_phi, tmp_path):
    phi = make_phi(5)
    write(phi, tmp_path / NAMES[to], to)
    for prompt in ("", "The bear"):
        texts = {
            load(path).generate(prompt, max_tokens=40, temperature=0)
            for path in (phi.path, tmp_path / NAMES[to])
        }
        assert len(texts) == 1


def test_a_safetensors_file_is_read_with_the_config_beside_it(make_phi, tmp_path):
    write(make_phi(), tmp_path / "hf", "safetensors")
    assert read(tmp_path / "hf" / "model.safetensors").config == read(tmp_path / "hf").config


# --- what the files mean, by plain readers ------------------------------------------------------


def rms(x, gain):
    return gain * x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)


def pair_llama(w, ids, n_head, n_kv_head):
    """Logits [T, V], float64, of a Llama whose RoPE turns neighbours; w holds its matrices.

    Written with a loop over positions and heads, as a C program would.
    """
    x = w["embedding"][ids].astype(np.float64)
    n_embd = x.shape[1]
    size, group = n_embd // n_head, n_head // n_kv_head
    angles = np.outer(np.arange(len(ids)), 10_000.0 ** (-np.arange(0, size, 2) / size))

    def turned(rows):
        z = rows.reshape(len(ids), -1, size // 2, 2)
        z = (z[..., 0] + 1j * z[..., 1]) * np.exp(1j * angles)[:, None]
        return np.stack([z.real, z.imag], -1).reshape(len(ids), -1, size)

    for layer in w["layers"]:
        h = rms(x, layer["attention_norm"])
        q, k = turned(h @ layer["q"].T), turned(h @ layer["k"].T)
        v = (h @ layer["v"].T).reshape(len(ids), -1, size)
        out = np.zeros((len(ids), n_head, size))
        for t in range(len(ids)):
            for head in range(n_head):
                p = np.exp(k[: t + 1, head // group] @ q[t, head] / size**0.5)
                out[t, head] = p / p.sum() @ v[: t + 1, head // group]
        x = x + out.reshape(len(ids), -1) @ layer["out"].T
        h = rms(x, layer["mlp_norm"])
        gate = h @ layer["gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ layer["up"].T)) @ layer["down"].T
    return rms(x, w["final_norm"]) @ w["head"].T


def plain_llama2c(path):
    """The weights of a model.bin, as run.c's memory_map_weights walks through them."""
    data = path.read_bytes()
    dim, hidden, layers, n_head, n_kv, vocab, length = struct.unpack("<7i", data[:28])
    floats = np.frombuffer(data, "<f4", offset=28)
    at = 0

    def take(*shape):
        nonlocal at
        at += int(np.prod(shape))
        return floats[at - int(np.prod(shape)) : at].reshape(shape)

    kv = dim // n_head * n_kv
    w = {"embedding": take(abs(vocab), dim)}
    order = {
        "attention_norm": (dim,), "q": (dim, dim), "k": (kv, dim), "v": (kv, dim),
        "out": (dim, dim), "mlp_norm": (dim,), "gate": (hidden, dim), "down": (dim, hidden),
        "up": (hidden, dim),
    }  # fmt: skip
    stacked = {name: take(layers, *shape) for name, shape in order.items()}
    w["layers"] = [{name: s[i] for name, s in stacked.items()} for i in range(layers)]
    w["final_norm"] = take(dim)
    take(length * (dim // n_head))
    w["head"] = w["embedding"] if vocab > 0 else take(-vocab, dim)
    assert at == floats.size
    return w, n_head, n_kv


def plain_tokens(path, size):
    """(score, bytes) of a tokenizer.bin, as run.c reads them; a token may not be empty."""
    data = path.read_bytes()
    at, tokens = 4, []
    for _ in range(size):
        score, length = struct.unpack_from("<fi", data, at)
        assert length > 0
        tokens.append((score, data[at + 8 : at + 8 + length]))
        at += 8 + length
    assert at == len(data)
    assert struct.unpack_from("<i", data)[0] == max(len(t) for _, t in tokens)
    return tokens


@pytest.mark.parametrize("config", CHOICES.values(), ids=CHOICES)
def test_a_plain_reader_of_llama2c_computes_the_same_logits(config, make_phi, tmp_path, tokenizer):
    phi = make_phi(**config)
    write(phi, tmp_path / "model.bin", "llama2c")
    tokens = [token for _, token in plain_tokens(tmp_path / "tokenizer.bin", tokenizer.n_vocab)]
    assert tokens[1] == b"<|endoftext|>"
    assert tokens[3:259] == [bytes([b]) for b in range(256)]
    ours = [tokenizer.eot_token, *tokenizer.encode(PROMPT)]
    theirs = [tokens.index(tokenizer.token_bytes(i)) for i in ours]
    w, n_head, n_kv = plain_llama2c(tmp_path / "model.bin")
    found = pair_llama(w, theirs, n_head, n_kv)
    expected = phi.model.logits([ours])[0]
    new = [tokens.index(tokenizer.token_bytes(i)) for i in range(tokenizer.n_vocab)]
    np.testing.assert_allclose(found[:, new], expected[:, : tokenizer.n_vocab], atol=1e-4)


def test_llama2c_s_own_merging_finds_the_tokenizer_s_ids(make_phi, tmp_path, tokenizer):
    """run.c merges the best-scored neighbours; within one piece that is the tokenizer's result."""
    write(make_phi(), tmp_path / "model.bin", "llama2c")
    tokens = plain_tokens(tmp_path / "tokenizer.bin", tokenizer.n_vocab)
    place = {token: i for i, (_, token) in enumerate(tokens)}
    for word in (" bear", "The", " glad", "Der", " Ärger"):
        ids = [place[bytes([b])] for b in word.encode()]
        while True:
            joined = [tokens[a][1] + tokens[b][1] for a, b in itertools.pairwise(ids)]
            scored = [(tokens[place[t]][0], -i) for i, t in enumerate(joined) if t in place]
            if not scored:
                break
            at = -max(scored)[1]
            ids[at : at + 2] = [place[joined[at]]]
        assert [tokens[i][1] for i in ids] == [
            tokenizer.token_bytes(i) for i in tokenizer.encode(word)
        ]


@pytest.mark.parametrize("config", CHOICES.values(), ids=CHOICES)
def test_gguf_tensors_turn_in_pairs(config, make_phi, tmp_path, tokenizer):
    phi = make_phi(**config)
    write(phi, tmp_path / "m.gguf", "gguf")
    metadata, tensors = read_gguf(tmp_path / "m.gguf")
    short = {
        "attn_norm": "attention_norm", "attn_q": "q", "attn_k": "k", "attn_v": "v",
        "attn_output": "out", "ffn_norm": "mlp_norm", "ffn_gate": "gate", "ffn_up": "up",
        "ffn_down": "down",
    }  # fmt: skip
    w = {
        "embedding": tensors["token_embd.weight"],
        "final_norm": tensors["output_norm.weight"],
        "head": tensors.get("output.weight", tensors["token_embd.weight"]),
        "layers": [
            {ours: tensors[f"blk.{i}.{name}.weight"] for name, ours in short.items()}
            for i in range(metadata["llama.block_count"])
        ],
    }
    heads = (metadata[f"llama.attention.head_count{end}"] for end in ("", "_kv"))
    ids = [tokenizer.eot_token, *tokenizer.encode(PROMPT)]
    found = pair_llama(w, ids, *heads)
    np.testing.assert_allclose(found, phi.model.logits([ids])[0], atol=1e-4)
    assert metadata["tokenizer.ggml.bos_token_id"] == tokenizer.eot_token


def test_the_folder_s_config_and_names(make_phi, tmp_path, tokenizer):
    write(make_phi(n_embd=64, n_head=4, n_kv_head=2, **SCALED), tmp_path / "hf", "safetensors")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["num_key_value_heads"], config["head_dim"]) == (2, 16)
    assert config["rope_parameters"] == {
        "rope_type": "linear", "rope_theta": 500.0, "factor": 2.5,
    }  # fmt: skip
    assert config["eos_token_id"] == tokenizer.eot_token
    tensors, _ = read_safetensors(tmp_path / "hf" / "model.safetensors")
    assert tensors["model.layers.1.self_attn.k_proj.weight"].shape == (32, 64)
    assert "lm_head.weight" not in tensors


def test_rows_exchanged_by_hand():
    rows = np.arange(8.0)[:, None]  # two heads of four channels
    assert halves_to_pairs(rows, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((24, 5))
    np.testing.assert_array_equal(pairs_to_halves(halves_to_pairs(matrix, 3), 3), matrix)


def test_q8_0_by_the_definition():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 64)).astype(np.float32)
    values[1] = 0
    data = quantize(values)
    assert data.shape == (3, 68)
    for row, packed in zip(values, data, strict=True):
        for block, raw in zip(row.reshape(2, 32), packed.reshape(2, 34), strict=True):
            scale, *weights = struct.unpack("<e32b", raw.tobytes())
            assert scale == pytest.approx(np.abs(block).max() / 127, rel=1e-3)
            assert np.abs(block - scale * np.array(weights)).max() <= 0.51 * scale + 1e-6
    np.testing.assert_array_equal(dequantize(data, (3, 64))[1], 0)


# --- what a format cannot hold ------------------------------------------------------------------


RWKV = {"kind": "rwkv7", "n_embd": 32, "n_head": 2, "vocab_size": 300}


@pytest.mark.parametrize(
    ("to", "config", "words"),
    [
        *((to, {"qk_norm": True}, "qk_norm") for to in FORMATS[1:]),
        *((to, RWKV, "rwkv7") for to in FORMATS[1:]),
        ("llama2c", {"rope_scaling": 2.0}, "rope_scaling 2"),
        ("llama2c", {"rope_base": 500.0}, "rope_base 500"),
        ("llama2c", {"norm_eps": 1e-3}, "norm_eps 0.001"),
    ],
)
def test_an_option_without_a_place_is_named(to, config, words, make_phi, tmp_path):
    with pytest.raises(FormatError, match=words):
        write(make_phi(**config), tmp_path / NAMES[to], to)
    assert [p.name for p in tmp_path.iterdir()] == ["model.phi"]


@pytest.mark.parametrize("config", [{"qk_norm": True}, RWKV])
@pytest.mark.parametrize("dtype", DTYPES)
def test_phi_holds_every_option(config, dtype, make_phi, tmp_path):
    phi = make_phi(**config)
    write(phi, tmp_path / "new.phi", "phi", dtype=dtype)
    ids = [[1, 2, 3]]
    found = read(tmp_path / "new.phi").model.logits(ids)
    np.testing.assert_allclose(found, phi.model.logits(ids), atol=0.3)


@pytest.mark.parametrize(
    ("to", "dtype"),
    [("safetensors", "int8"), ("llama2c", "float16"), ("llama2c", "int8")],
)
def test_a_dtype_without_a_place_is_named(to, dtype, make_phi, tmp_path):
    with pytest.raises(FormatError, match=dtype):
        write(make_phi(), tmp_path / NAMES[to], to, dtype=dtype)


def test_unknown_names(make_phi, tmp_path):
    with pytest.raises(FormatError, match="'onnx' is not known; choose one of phi"):
        write(make_phi(), tmp_path / "x", "onnx")
    with pytest.raises(FormatError, match="'int4' is not known; choose one of float32"):
        write(make_phi(), tmp_path / "x", "gguf", dtype="int4")


def test_weights_too_large_for_half_are_named(make_phi, tmp_path):
    phi = make_phi()
    phi.tensors["model/layers.1.mlp.down"] = phi.parameters["layers.1.mlp.down"] + 1e5
    for to in ("phi", "safetensors", "gguf"):
        with pytest.raises(FormatError, match=r"down.* float16 cannot"):
            write(phi, tmp_path / NAMES[to], to, dtype="float16")


@pytest.mark.parametrize("to", ["gguf", "llama2c"])
def test_tokenizers_that_a_format_cannot_hold(to, make_phi, tmp_path):
    names = {"vocab_size": 258, "special_tokens": ["<|endoftext|>"]}
    other = Tokenizer.train("abc abd", pattern="none", **names)
    with pytest.raises(FormatError, match="pattern"):
        write(make_phi(tokenizer=other), tmp_path / NAMES[to], to)
    with pytest.raises(FormatError, match="holds no tokenizer"):
        write(make_phi(tokenizer=None), tmp_path / NAMES[to], to)


def test_llama2c_needs_an_end_token(make_phi, tmp_path):
    other = Tokenizer.train("abc abd", vocab_size=257)
    with pytest.raises(FormatError, match=r"needs <\|endoftext\|>"):
        write(make_phi(tokenizer=other), tmp_path / "model.bin", "llama2c")
    with pytest.raises(FormatError, match="call the model"):
        write(make_phi(), tmp_path / "tokenizer.bin", "llama2c")


def test_a_folder_without_a_tokenizer_cannot_generate(make_phi, tmp_path):
    write(make_phi(tokenizer=None), tmp_path / "hf", "safetensors")
    with pytest.raises(ModelError, match="holds no tokenizer"):
        load(tmp_path / "hf")


def test_a_model_bin_without_its_tokenizer(make_phi, tmp_path):
    write(make_phi(), tmp_path / "model.bin", "llama2c")
    (tmp_path / "tokenizer.bin").unlink()
    with pytest.raises(FormatError, match=r"no tokenizer\.bin beside it"):
        read(tmp_path / "model.bin")


def test_a_model_beside_another_does_not_change_its_tokenizer(make_phi, tmp_path, byte_tokenizer):
    folder = tmp_path / "together"
    folder.mkdir()
    for name in ("a.bin", "b.bin"):  # with the same tokenizer
        write(make_phi(), folder / name, "llama2c")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    other = make_phi(tokenizer=byte_tokenizer)
    with pytest.raises(FormatError, match=r"is the tokenizer of [ab]\.bin"):
        write(other, folder / "c.bin", "llama2c")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_safetensors_file_of_another_name_is_not_taken_for_the_model(make_phi, tmp_path):
    folder = tmp_path / "hf"
    write(make_phi(), folder, "safetensors")
    (folder / "other.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(FormatError, match="its name must be"):
        read(folder / "other.safetensors")
