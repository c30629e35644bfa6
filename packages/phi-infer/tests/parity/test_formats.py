"""Converted files in the hands of those whose formats they are: transformers, safetensors, gguf.

Runs only where these and torch are installed (the `parity` environment).
"""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers

from phi_infer.formats import read, write
from phi_infer.formats.gguf import read_gguf
from phi_infer.formats.safetensors import read_safetensors, write_safetensors
from phi_model import save_checkpoint

CHOICES = {
    "plain": {},
    "shared keys, wide": {"n_embd": 64, "n_head": 4, "n_kv_head": 2, "n_hidden": 96},
    "untied, spare rows": {"tied_head": False, "vocab_size": 310},
    "scaled": {"rope_scaling": 2.5, "rope_base": 500.0, "norm_eps": 1e-3},
}
PROMPT = "Der Bär süßt Öl für 日本語 und 😀!"


@pytest.fixture(params=CHOICES.values(), ids=CHOICES)
def phi(request, tmp_path, tokenizer, make_model):
    """A checkpoint of a model whose every part matters."""
    path = tmp_path / "model.phi"
    model = make_model(3, seq_len=64, **request.param)
    save_checkpoint(path, model, tokenizer=tokenizer.to_bytes())
    return read(path)


def ids_of(tokenizer):
    return [tokenizer.eot_token, *tokenizer.encode(PROMPT)]


def test_transformers_gives_the_same_logits(phi, tmp_path, tokenizer):
    write(phi, tmp_path / "hf", "safetensors")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "hf", attn_implementation="eager", dtype=torch.float32
    )
    assert type(model) is transformers.LlamaForCausalLM
    ids = ids_of(tokenizer)
    with torch.no_grad():
        theirs = model(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(theirs, phi.model.logits([ids])[0], atol=1e-4)


def test_transformers_generates_the_same_greedy_text(phi, tmp_path, tokenizer):
    write(phi, tmp_path / "hf", "safetensors")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    ids = ids_of(tokenizer)[:6]
    made = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, 6, dtype=torch.long),
        max_new_tokens=20,
        do_sample=False,
        pad_token_id=tokenizer.eot_token,
    )[0].tolist()
    expected = list(ids)
    while len(expected) < 26 and expected[-1] != tokenizer.eot_token:
        expected.append(int(np.argmax(phi.model.logits([expected])[0, -1])))
    assert made == expected


def test_transformers_tokenizer_gives_the_same_ids(phi, tmp_path, tokenizer):
    write(phi, tmp_path / "hf", "safetensors")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert theirs.encode(PROMPT, add_special_tokens=False) == tokenizer.encode(PROMPT)
    assert theirs.decode(tokenizer.encode(PROMPT)) == PROMPT
    assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.eot_token,) * 2


@pytest.mark.parametrize("tied", [True, False])
def test_what_transformers_writes_is_read(tied, tmp_path, tokenizer):
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        tie_word_embeddings=tied, rms_norm_eps=1e-5,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.3)
    model.save_pretrained(tmp_path / "theirs")
    ids = ids_of(tokenizer)
    with torch.no_grad():
        theirs = model(torch.tensor([ids])).logits[0].numpy()
    ours = read(tmp_path / "theirs").model.logits([ids])[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_safetensors_files_of_both_sides(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {f"t{d}": (9 * rng.standard_normal((3, 5))).astype(d) for d in ("f2", "f4", "f8")}
    tensors |= {"empty": np.empty((0, 4), np.float32), "one": np.float32([7])}
    write_safetensors(tmp_path / "ours", tensors, metadata={"format": "pt"})
    safetensors.numpy.save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    both = safetensors.numpy.load_file(tmp_path / "ours"), read_safetensors(tmp_path / "theirs")[0]
    for found in both:
        assert set(found) == set(tensors)
        for name, value in tensors.items():
            np.testing.assert_array_equal(found[name], value)
            assert found[name].dtype == value.dtype


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_gguf_s_own_package_reads_the_same(phi, dtype, tmp_path):
    path = tmp_path / "m.gguf"
    write(phi, path, "gguf", dtype=dtype)
    theirs = gguf.GGUFReader(path)
    metadata, tensors = read_gguf(path)
    assert {t.name for t in theirs.tensors} == set(tensors)
    for tensor in theirs.tensors:
        value = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(value.reshape(tensors[tensor.name].shape),
                                      tensors[tensor.name].astype(np.float32))  # fmt: skip
        wide = tensors[tensor.name].shape[-1] % 32 == 0 and len(tensor.shape) == 2
        assert tensor.tensor_type.name == {
            "float32": "F32",
            "float16": "F16" if tensors[tensor.name].ndim == 2 else "F32",
            "int8": "Q8_0" if wide else "F16" if tensors[tensor.name].ndim == 2 else "F32",
        }[dtype]  # fmt: skip
    assert {k for k in theirs.fields if not k.startswith("GGUF.")} == set(metadata)
    for key, value in metadata.items():
        found = theirs.fields[key].contents()
        assert found == (value.tolist() if isinstance(value, np.ndarray) else value)


def test_q8_0_rounds_as_gguf_s_own_package(phi, tmp_path):
    write(phi, tmp_path / "m.gguf", "gguf", dtype="int8")
    write(phi, tmp_path / "full.gguf", "gguf")
    full = read_gguf(tmp_path / "full.gguf")[1]
    for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors:
        if tensor.tensor_type.name == "Q8_0":
            theirs = gguf.quants.quantize(full[tensor.name], gguf.GGMLQuantizationType.Q8_0)
            np.testing.assert_array_equal(tensor.data, theirs)


def test_what_gguf_s_own_package_writes_is_read(tmp_path):
    path = tmp_path / "theirs.gguf"
    rng = np.random.default_rng(0)
    tensors = {"a": rng.standard_normal((3, 64)).astype("f4"), "b": np.ones(5, np.float16)}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 3)
    writer.add_array("some.list", ["a", "ü"])
    writer.add_custom_alignment(64)
    for name, value in tensors.items():
        writer.add_tensor(name, value)
    writer.add_tensor("q", gguf.quants.quantize(tensors["a"], gguf.GGMLQuantizationType.Q8_0),
                      raw_dtype=gguf.GGMLQuantizationType.Q8_0)  # fmt: skip
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    metadata, found = read_gguf(path)
    assert metadata["llama.block_count"] == 3
    assert metadata["some.list"] == ["a", "ü"]
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value)
    np.testing.assert_allclose(found["q"], tensors["a"], atol=0.02)
