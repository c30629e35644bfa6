"""A converted GGUF file in llama.cpp itself: ids, text and logits.

Runs where llama-cpp-python is installed, which is compiled from source for half an hour; it is not
in the `parity` environment:

    pip install llama-cpp-python
    python -m pytest packages/phi-infer/tests/parity/test_llama_cpp.py
"""

from __future__ import annotations

import numpy as np
import pytest

from phi_infer.formats import read, write
from phi_model import save_checkpoint

llama_cpp = pytest.importorskip("llama_cpp", reason="llama.cpp is not installed")

CHOICES = {
    "plain": {},
    "shared keys, wide": {"n_embd": 64, "n_head": 4, "n_kv_head": 2, "n_hidden": 96},
    "untied, spare rows": {"tied_head": False, "vocab_size": 310},
    "scaled": {"rope_scaling": 2.5, "rope_base": 500.0, "norm_eps": 1e-3},
}
PROMPT = "Der Bär süßt Öl für 日本語 und 😀! The bear was glad."
F32 = 0  # ggml's type: of its cache of keys and values, otherwise half
# of logits with a deviation of 1; llama.cpp rounds activations too: to half, or to eight bits
TOLERANCES = {"float32": 1e-4, "float16": 0.02, "int8": 0.5}


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("config", CHOICES.values(), ids=CHOICES)
def test_llama_cpp_gives_the_same(config, dtype, tmp_path, tokenizer, make_model):
    model = make_model(3, seq_len=128, **config)
    save_checkpoint(tmp_path / "m.phi", model, tokenizer=tokenizer.to_bytes())
    write(read(tmp_path / "m.phi"), tmp_path / "m.gguf", "gguf", dtype=dtype)
    theirs = llama_cpp.Llama(
        str(tmp_path / "m.gguf"),
        n_ctx=256,
        n_threads=1,
        type_k=F32,
        type_v=F32,
        logits_all=True,
        verbose=False,
    )
    ids = [tokenizer.eot_token, *tokenizer.encode(PROMPT)]
    assert theirs.tokenize(PROMPT.encode(), add_bos=True, special=False) == ids
    assert theirs.detokenize(ids[1:]).decode() == PROMPT
    theirs.eval(ids)
    found = np.array(theirs.scores[: len(ids)])
    expected = model.logits([ids])[0]
    np.testing.assert_allclose(found, expected, atol=TOLERANCES[dtype])
    theirs.close()
