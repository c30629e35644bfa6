"""The other tokenizers, each behind the same few functions.

A peer that is not installed is left out, and named. All of them get the same split pattern and,
where they can take one, the same vocabulary; sentencepiece cannot and trains its own.
"""

import importlib
import importlib.metadata
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from phi_tokenizer import Tokenizer
from phi_tokenizer.splitter import GPT2

PACKAGES = ("phi-tokenizer", "tokenizers", "tiktoken", "sentencepiece", "gigabpe", "snaptokens")

Train = Callable[[], Any]


@dataclass
class Encoder:
    """A peer with a vocabulary loaded and its caches empty.

    `to_array` takes documents and gives one uint16 array of all ids; `to_list` takes a text.
    """

    to_array: Callable[[list[str]], Any]
    to_list: Callable[[str], list[int]]
    same_ids: bool = True


def versions() -> dict[str, str]:
    """Package -> version, for those that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def flat(rows: Any) -> Any:
    """One uint16 array from lists or arrays of ids."""
    return np.concatenate([np.asarray(row, np.uint16) for row in rows])


def hf_merges(documents: list[str], vocab_size: int) -> list[list[str]]:
    """Train with HF tokenizers."""
    hf = importlib.import_module("tokenizers")
    byte_level = hf.pre_tokenizers.ByteLevel
    model = hf.Tokenizer(hf.models.BPE())
    model.pre_tokenizer = byte_level(add_prefix_space=False)
    trainer = hf.trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=byte_level.alphabet(), show_progress=False
    )
    model.train_from_iterator(documents, trainer)
    merges: list[list[str]] = json.loads(model.to_str())["model"]["merges"]
    return merges


def trainers(documents: list[str], vocab_size: int, folder: Path) -> dict[str, Train]:
    """Name -> a function that trains once, on one thread."""
    installed = versions()
    found: dict[str, Train] = {
        "phi-tokenizer": lambda: Tokenizer.train(documents, vocab_size=vocab_size),
        "tokenizers": lambda: hf_merges(documents, vocab_size),
    }
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(documents), "utf-8")
    if "gigabpe" in installed:
        gigabpe = importlib.import_module("gigabpe")
        found["gigabpe"] = lambda: gigabpe.train_bpe(
            [str(corpus)], vocab_size=vocab_size, pretokenizer="bytelevel", threads=1
        )
    if "sentencepiece" in installed:
        sentencepiece = importlib.import_module("sentencepiece")
        found["sentencepiece"] = lambda: sentencepiece.SentencePieceTrainer.train(
            input=str(corpus),
            model_prefix=str(folder / "sentencepiece"),
            vocab_size=vocab_size,
            model_type="bpe",
            byte_fallback=True,
            hard_vocab_limit=False,
            num_threads=1,
            max_sentence_length=1 << 20,
            minloglevel=2,
        )
    return found


def encoders(tokenizer: Tokenizer, folder: Path) -> dict[str, Callable[[], Encoder]]:
    """Name -> a function that loads the vocabulary afresh."""
    installed = versions()
    data = tokenizer.to_bytes()
    path = folder / "tokenizer.json"
    path.write_bytes(data)

    def ours() -> Encoder:
        fresh = Tokenizer.from_bytes(data)
        return Encoder(lambda docs: fresh.encode_batch_to_numpy(docs)[0], fresh.encode)

    def hf() -> Encoder:
        fresh = importlib.import_module("tokenizers").Tokenizer.from_str(data.decode())
        return Encoder(
            lambda docs: flat(e.ids for e in fresh.encode_batch_fast(docs)),
            lambda text: fresh.encode(text).ids,
        )

    def tik() -> Encoder:
        fresh = tiktoken_encoding(tokenizer)
        return Encoder(lambda docs: flat(map(fresh.encode_to_numpy, docs)), fresh.encode)

    def snap() -> Encoder:
        fresh = importlib.import_module("snaptokens").Tokenizer.from_file(str(path))
        return Encoder(
            lambda docs: np.frombuffer(fresh.encode_batch_flat(docs)[0], "<u4").astype(np.uint16),
            lambda text: fresh.encode(text).ids,
        )

    def piece() -> Encoder:
        module = importlib.import_module("sentencepiece")
        fresh = module.SentencePieceProcessor(model_file=str(folder / "sentencepiece.model"))
        return Encoder(
            lambda docs: flat(fresh.encode(docs, num_threads=1)), fresh.encode, same_ids=False
        )

    found: dict[str, Callable[[], Encoder]] = {
        "phi-tokenizer": ours,
        "tiktoken": tik,
        "tokenizers": hf,
    }
    if "snaptokens" in installed:
        found["snaptokens"] = snap
    if "sentencepiece" in installed and (folder / "sentencepiece.model").exists():
        found["sentencepiece"] = piece
    return found


def tiktoken_encoding(tokenizer: Tokenizer) -> Any:
    """tiktoken with the same vocabulary."""
    return importlib.import_module("tiktoken").Encoding(
        name="ours",
        pat_str=GPT2,
        mergeable_ranks=tokenizer.vocabulary.ids,
        special_tokens=tokenizer.special_tokens,
    )


def scratch() -> "tempfile.TemporaryDirectory[str]":
    """A folder for files that peers insist on."""
    return tempfile.TemporaryDirectory(prefix="phi-benchmark-")
