"""The same merges, ids, texts and files as HF tokenizers and tiktoken.

The corpora are made here or come from Python's own library: no file from outside is needed.
"""

import json
import random
import sysconfig
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from phi_tokenizer import Tokenizer
from phi_tokenizer.splitter import CL100K, GPT2, Splitter
from phi_tokenizer.unicode_table import LETTERS, NUMBERS, SPACES, parse_ranges

pytestmark = pytest.mark.filterwarnings("ignore:the texts hold only")

AWKWARD = (
    *"ab1 '\n\t.-sdmtlveré日🎉\u3000\xa0\u2028\x1cÿ٣²\x00\x85\u1680",
    *("'s", "'ll", "  ", "'re", "' ", " '", "the", " cat", "12345"),
)
texts = st.lists(st.sampled_from(AWKWARD) | st.characters(codec="utf-8"), max_size=40).map("".join)


@cache
def library(size: int) -> list[str]:
    """Python's own sources: identifiers, numbers, indentation, and comments in many languages."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    documents, total = [], 0
    for path in sorted(folder.rglob("*.py")):
        if "site-packages" in path.parts:
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        documents.append(text)
        total += len(text)
        if total > size:
            break
    return documents


def story_like(seed: int) -> list[str]:
    rng = random.Random(seed)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(1, 8))) for _ in range(3000)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    return [" ".join(rng.choices(words, weights, k=2000)) + "." for _ in range(40)]


def unicode_mix(seed: int) -> list[str]:
    rng = random.Random(seed)
    points = [p for p in range(0x20, 0x2FFFF) if not 0xD800 <= p < 0xE000]
    return [
        "".join(map(chr, rng.choices(points, k=2000))) + " 日本語 naïve" * 30 for _ in range(10)
    ]


def ours(corpus: list[str], vocab_size: int) -> list[list[str]]:
    data = Tokenizer.train(corpus, vocab_size=vocab_size).to_bytes()
    merges: list[list[str]] = json.loads(data)["model"]["merges"]
    return merges


@pytest.mark.parametrize(
    ("corpus", "vocab_size"),
    [
        (library(2_000_000), 8192),
        (library(300_000), 1024),
        (story_like(0), 4096),
        (unicode_mix(0), 1500),
    ],
    ids=["library-8192", "library-1024", "words-4096", "unicode-1500"],
)
def test_merges(corpus: list[str], vocab_size: int, hf_train: Any) -> None:
    merges = ours(corpus, vocab_size)
    assert len(merges) == vocab_size - 256
    assert merges == hf_train(corpus, vocab_size)


def test_merges_full_of_ties(hf_train: Any) -> None:
    rng = random.Random(5)
    for _ in range(200):
        letters = rng.choice(["ab", "abc ", "ab é\n", "a"])
        corpus = [
            "".join(rng.choices(letters, k=rng.randint(1, 40))) for _ in range(rng.randint(1, 12))
        ]
        vocab_size = 256 + rng.randint(1, 60)
        assert ours(corpus, vocab_size) == hf_train(corpus, vocab_size), corpus


@cache
def vocabulary(name: str) -> Tokenizer:
    """Vocabularies of our own, and one of GPT-2's size that HF tokenizers trained."""
    special = ["<|endoftext|>"]
    if name == "small":
        return Tokenizer.train(library(300_000), vocab_size=1024, special_tokens=special)
    if name == "large":
        corpus = library(2_000_000) + unicode_mix(1)
        return Tokenizer.train(corpus, vocab_size=8192, special_tokens=special)
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = byte_level(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=50257,
        initial_alphabet=byte_level.alphabet(),
        special_tokens=special,
        show_progress=False,
    )
    model.train_from_iterator(library(14_000_000) + unicode_mix(2) + story_like(1), trainer)
    return Tokenizer.from_bytes(model.to_str().encode())


@pytest.mark.parametrize("name", ["small", "large", "gpt2-sized"])
def test_ids(name: str, hf: Any, tik: Callable[..., tiktoken.Encoding]) -> None:
    tokenizer = vocabulary(name)
    if name == "gpt2-sized":
        assert tokenizer.n_vocab > 40_000
    other_hf, other_tik = hf(tokenizer), tik(tokenizer)

    @given(texts)
    @settings(max_examples=400, deadline=None)
    def check(text: str) -> None:
        ids = tokenizer.encode_ordinary(text)
        assert ids == other_tik.encode_ordinary(text)
        if not any(special in text for special in tokenizer.special_tokens):
            assert ids == other_hf.encode(text).ids
        assert tokenizer._bulk is not None
        assert ids == tokenizer._bulk.encode(text.encode()).tolist()

    check()
    for text in library(300_000)[:20] + unicode_mix(7) + [" " * 9000 + "\n" * 99 + "a" * 9000]:
        ids = tokenizer.encode_ordinary(text)
        assert ids == other_tik.encode_ordinary(text)
        assert ids == other_hf.encode(text).ids
        assert tokenizer.decode(ids) == other_tik.decode(ids) == text


@given(text=texts)
@settings(max_examples=300, deadline=None)
def test_special_tokens_as_tiktoken(text: str) -> None:
    tokenizer = vocabulary("small")
    other = tiktoken.Encoding(
        name="ours",
        pat_str=GPT2,
        mergeable_ranks=tokenizer.vocabulary.ids,
        special_tokens=tokenizer.special_tokens,
    )
    text = f"{text}<|endoftext|>{text}"
    for options in (
        {"allowed_special": "all"},
        {"disallowed_special": ()},
        {"allowed_special": {"<|endoftext|>"}},
    ):
        assert tokenizer.encode(text, **options) == other.encode(text, **options)
    for encode in (tokenizer.encode, other.encode):
        with pytest.raises(ValueError, match="endoftext"):
            encode(text)


@given(text=texts)
@settings(max_examples=200, deadline=None)
def test_the_rest_as_tiktoken(text: str) -> None:
    tokenizer = vocabulary("small")
    other = tiktoken.Encoding(
        name="ours",
        pat_str=GPT2,
        mergeable_ranks=tokenizer.vocabulary.ids,
        special_tokens=tokenizer.special_tokens,
    )
    ids = tokenizer.encode_ordinary(text)
    assert tokenizer.decode_with_offsets(ids) == other.decode_with_offsets(ids)
    assert tokenizer.decode_bytes(ids) == other.decode_bytes(ids)
    assert tokenizer.decode(ids[1:]) == other.decode(ids[1:])  # may begin inside a character
    assert tokenizer.encode_to_numpy(text, disallowed_special=()).tolist() == (
        other.encode_to_numpy(text, disallowed_special=()).tolist()
    )
    assert tokenizer.n_vocab == other.n_vocab
    assert tokenizer.eot_token == other.eot_token
    assert tokenizer.token_byte_values() == other.token_byte_values()
    assert tokenizer.special_tokens_set == other.special_tokens_set


@given(text=texts)
@settings(max_examples=300, deadline=None)
def test_cl100k_pieces(text: str) -> None:
    """With the `regex` package, whose Unicode is newer: compared without the newest letters."""
    kept = "".join(char for char in text if char.isascii() or char in "é日🎉\u3000\xa0\u2028ÿ")
    pre = tokenizers.pre_tokenizers.Split(tokenizers.Regex(CL100K), "isolated")
    assert Splitter("cl100k").split(kept) == [piece for piece, _ in pre.pre_tokenize_str(kept)]


@pytest.mark.parametrize(
    ("ranges", "pattern"), [(LETTERS, r"\p{L}"), (NUMBERS, r"\p{N}"), (SPACES, r"\s")]
)
def test_every_code_point(ranges: str, pattern: str) -> None:
    mine = {p for first, last in parse_ranges(ranges) for p in range(first, last + 1)}
    everything = "".join(chr(p) for p in range(0x110000) if not 0xD800 <= p < 0xE000)
    pre = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "removed", invert=True)
    assert {ord(char) for char, _ in pre.pre_tokenize_str(everything)} == mine
    single = tiktoken.Encoding(
        name="bytes",
        pat_str=pattern,
        mergeable_ranks={bytes([byte]): byte for byte in range(256)},
        special_tokens={},
    )
    assert set(map(ord, bytes(single.encode_ordinary(everything)).decode())) == mine


def test_files_of_others(tmp_path: Path, hf: Any, tik: Callable[..., tiktoken.Encoding]) -> None:
    """What HF writes is read, in its older form too, and what is written is read by HF."""
    tokenizer = vocabulary("small")
    theirs = hf(tokenizer)
    theirs.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path) == tokenizer
    tokenizer.save(tmp_path / "gpt2", to="gpt2")
    model = tokenizers.models.BPE.from_file(
        str(tmp_path / "gpt2" / "vocab.json"), str(tmp_path / "gpt2" / "merges.txt")
    )
    rebuilt = tokenizers.Tokenizer(model)
    rebuilt.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = library(300_000)[0]
    assert rebuilt.encode(text).ids == tokenizer.encode(text)
    tokenizer.save(tmp_path / "x.tiktoken", to="tiktoken")
    from tiktoken.load import load_tiktoken_bpe  # noqa: PLC0415

    ranks = load_tiktoken_bpe(str(tmp_path / "x.tiktoken"))
    assert ranks == tik(tokenizer)._mergeable_ranks
