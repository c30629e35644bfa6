"""Files of every format: written, read again, and broken in many ways."""

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi_tokenizer import FormatError, Tokenizer, TokenizerError
from phi_tokenizer.formats.byte_alphabet import to_bytes, to_text

TEXT = "Once upon a time, naïve café 日本語 🎉 it's 12 o'clock.\n\n  end"
TOKENIZER = Tokenizer.train([TEXT * 2, "the little cat"], vocab_size=290, special_tokens=["<|e|>"])


def test_hf(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    assert TOKENIZER.save(path) == [path]
    again = Tokenizer.load(path)
    assert again == TOKENIZER
    assert path.read_bytes() == again.to_bytes() == TOKENIZER.to_bytes()
    assert Tokenizer.load(tmp_path) == TOKENIZER
    assert list(tmp_path.iterdir()) == [path]


def test_hf_with_merges_as_text() -> None:
    document = json.loads(TOKENIZER.to_bytes())
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    assert Tokenizer.from_bytes(json.dumps(document).encode()) == TOKENIZER


def test_gpt2(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "gpt2"
    vocab, merges = TOKENIZER.save(folder, to="gpt2")
    assert merges.read_text("utf-8").startswith("#version: 0.2\n")
    for path in (folder, vocab, merges):
        assert Tokenizer.load(path) == TOKENIZER


def test_tiktoken(tmp_path: Path) -> None:
    path = tmp_path / "x.tiktoken"
    TOKENIZER.save(path, to="tiktoken")
    assert Tokenizer.load(path, special_tokens={"<|e|>": 289}) == TOKENIZER
    assert Tokenizer.load(tmp_path, special_tokens=["<|e|>"]) == TOKENIZER
    plain = Tokenizer.load(path)
    assert plain.n_vocab == 289
    assert plain.encode(TEXT) == TOKENIZER.encode(TEXT)
    holes = Tokenizer.load(path, special_tokens={"<|far|>": 295})
    assert holes.n_vocab == 296
    assert holes.encode("<|far|>", allowed_special="all") == [295]
    with pytest.raises(TokenizerError, match="token id 292"):
        holes.decode([292])
    with pytest.raises(FormatError, match="taken"):
        Tokenizer.load(path, special_tokens={"<|far|>": 5})


def test_llama2c(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "tokenizer.bin", to="llama2c")
    data = (tmp_path / "tokenizer.bin").read_bytes()
    (longest,) = struct.unpack_from("<i", data)
    tokens, scores, at = [], [], 4
    while at < len(data):
        score, size = struct.unpack_from("<fi", data, at)
        tokens.append(data[at + 8 : at + 8 + size])
        scores.append(score)
        at += 8 + size
    assert tokens == [TOKENIZER.token_bytes(i) for i in range(TOKENIZER.n_vocab)]
    assert longest == max(map(len, tokens))
    made = scores[256 : 256 + len(TOKENIZER.vocabulary.merges)]
    assert made == sorted(made, reverse=True)


def test_formats_that_cannot_hold_a_vocabulary(tmp_path: Path) -> None:
    other = Tokenizer.train("abc", vocab_size=256, pattern="none")
    with pytest.raises(FormatError, match="no split pattern"):
        other.save(tmp_path / "x", to="gpt2")
    with pytest.raises(FormatError, match="not known"):
        other.save(tmp_path / "x", to="bpe")  # type: ignore[arg-type]
    shuffled = json.loads(TOKENIZER.to_bytes())
    vocab = shuffled["model"]["vocab"]
    first, second = ("".join(pair) for pair in shuffled["model"]["merges"][:2])
    vocab[first], vocab[second] = vocab[second], vocab[first]
    with pytest.raises(FormatError, match="not in the order"):
        Tokenizer.from_bytes(json.dumps(shuffled).encode()).save(tmp_path / "x", to="tiktoken")
    assert not list(tmp_path.iterdir())
    odd = Tokenizer.train("the the the", vocab_size=260, special_tokens=["Ġthe"])
    with pytest.raises(FormatError, match="cannot tell the special token"):
        odd.to_bytes()


def change(**changes: Any) -> bytes:
    document = json.loads(TOKENIZER.to_bytes())
    for path, value in changes.items():
        place = document
        *parents, last = path.split("__")
        for parent in parents:
            place = place[int(parent) if isinstance(place, list) else parent]
        place[last] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a tokenizer.json"),
        (b"[1]", "must be an object"),
        (b"{}", "'model' is missing"),
        (b"[" * 100_000, "not a tokenizer.json"),
        (b"\xff\xfe\xfd", "not a tokenizer.json"),
        (change(model__type="Unigram"), "only BPE"),
        (change(normalizer={"type": "NFC"}), "normalizer"),
        (change(model__byte_fallback=True), "byte_fallback"),
        (change(model__vocab=[]), "'vocab' is missing"),
        (change(model__vocab={"a": 0}), "unknown token|no token for byte"),
        (change(model__vocab__a=-3), "no valid id"),
        (change(model__vocab__a=1 << 70), "largest id"),
        (change(model__vocab__a=True), "no valid id"),
        (change(model__vocab__日=289), "two tokens|no byte"),
        (change(model__merges=[["a"]]), "must be a pair"),
        (change(model__merges=[["a", 3]]), "unknown token"),
        (change(model__merges=[["a", "b"]]), "which is not in the vocabulary"),
        (change(model__merges=[["t", "h"]] * 2), "twice|not in the vocabulary"),
        (change(model__merges=None), "'merges' is missing"),
        (change(added_tokens__0__id=3), "two ids"),
        (change(added_tokens__0__content=7), "'content' is missing"),
        (change(added_tokens__0__lstrip=True), "lstrip"),
        (change(added_tokens__0__special=False), "not a special one"),
        (change(added_tokens=[5]), "'content' is missing"),
        (change(pre_tokenizer=None), "no pre-tokenizer"),
        (change(pre_tokenizer={"type": "Whitespace"}), "does not end with ByteLevel"),
        (change(pre_tokenizer__add_prefix_space=True), "add_prefix_space"),
        (change(pre_tokenizer={"type": "Sequence", "pretokenizers": []}), "ByteLevel"),
    ],
)
def test_broken_hf(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        Tokenizer.from_bytes(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tiktoken", b"", "empty"),
        ("a.tiktoken", b"IQ== x\n", "line 1"),
        ("a.tiktoken", b"!!!! 0\n", "line 1"),
        ("a.tiktoken", b"IQ== 0\nIQ== 1\n", "twice"),
        ("a.tiktoken", b"IQ== 0\nIg== 0\n", "same rank"),
        ("a.tiktoken", b"IQ== 99999999999\n", "no id"),
        ("a.tiktoken", b"IQ== 0\n", "no token for byte"),
        ("vocab.json", b'{"a": 0}', "neither a tokenizer.json nor"),
        ("tokenizer.json", b"{", "not a tokenizer.json"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        Tokenizer.load(path)
    assert str(path) in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Tokenizer.load(tmp_path / "tokenizer.json")
    with pytest.raises(FormatError, match="the folder holds no"):
        Tokenizer.load(tmp_path)
    (tmp_path / "merges.txt").write_bytes(b"#version: 0.2\n")
    with pytest.raises(FileNotFoundError):
        Tokenizer.load(tmp_path / "merges.txt")


def damage(rng: random.Random, data: bytes) -> bytes:
    """One of many ways to break a file."""
    at, other = rng.randrange(len(data)), rng.randrange(len(data))
    low, high = min(at, other), max(at, other)
    match rng.randrange(6):
        case 0:
            return data[:at]
        case 1:
            return data[:low] + data[high:]
        case 2:
            return data[:at] + rng.randbytes(rng.randint(1, 8)) + data[at + 1 :]
        case 3:
            return data[:high] + data[low:]
        case 4:
            old = rng.choice([b"null", b"true", b"false", b"[", b"{", b'"', b":", b",", b"0", b"1"])
            new = rng.choice([b"null", b"[]", b"{}", b'""', b"-1", b"1e999", b"NaN", b"7", b" "])
            return data[:at] + data[at:].replace(old, new, rng.randint(1, 3))
        case _:
            return rng.randbytes(rng.randint(0, 400))


def test_ten_megabytes_of_malformed_files(tmp_path: Path) -> None:
    """Each is read as it is meant, or refused with an error of the package's own."""
    small = Tokenizer.train([TEXT], vocab_size=262, special_tokens=["<|e|>"])
    small.save(tmp_path / "tokenizer.json")
    small.save(tmp_path / "gpt2", to="gpt2")
    small.save(tmp_path / "x.tiktoken", to="tiktoken")
    rng = random.Random(0)
    done = refused = 0
    originals = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    while done < 10_000_000:
        for path, data in originals.items():
            broken = damage(rng, data)
            path.write_bytes(broken)
            done += len(broken) + 1
            try:
                tokenizer = Tokenizer.load(path)
                assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
            except TokenizerError:
                refused += 1
            path.write_bytes(data)
    assert refused > 1000


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_any_bytes_are_no_tokenizer(data: bytes) -> None:
    with pytest.raises(TokenizerError):
        Tokenizer.from_bytes(data)


@given(st.binary())
def test_byte_alphabet(data: bytes) -> None:
    text = to_text(data)
    assert to_bytes(text) == data
    assert text.isprintable()
    assert " " not in text
