"""A trial that is a run of phi-train on some of the documents, with more figures about it.

Beside the settings of phi-train a config may have

    documents    how many of the training source's documents to train on, from its start; 0: all

The tokenizer is learnt on all of them, so that losses on the held-out text compare. Figures beside
phi-train's: `train_loss`, on the documents trained on (at most 16,384 tokens of them);
`distinct_tokens`; `largest_drop`, the largest relative fall of the training loss (mean of 50
steps) from one such stretch to the next but one, within 100 steps, after the first 200; `drop_at`,
where that stretch ends; `wall_left_at`, the first step whose mean of 50 is below the unigram level.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from phi_model import load_checkpoint
from phi_model.files import atomic_write
from phi_tokenizer import Tokenizer
from phi_train import ConfigError, TrainConfig, TrainResult, evaluate
from phi_train import train as phi_train_run
from phi_train.corpus import documents_to_measure, open_corpus
from phi_train.documents import END_OF_TEXT
from phi_train.ngram import KneserNey
from phi_train.progress import Quiet
from phi_train.tokens import encode_documents

__all__ = ["drops", "levels", "train"]

TRAIN_TOKENS = 16_384
STRETCH, EARLIEST = 50, 200  # steps
NAMES = ("unigram", "bigram", "trigram", "4-gram", "5-gram")


class _Asking(Quiet):
    """Ends a run when it is asked to; it goes on from its last checkpoint."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self._stop = stop

    def step(self, *args: Any, **kwargs: Any) -> None:
        super().step(*args, **kwargs)
        if self._stop():
            from phi_train.experiment import Stopped  # noqa: PLC0415 (the runner's)

            raise Stopped


def train(
    config: Mapping[str, Any], seed: int, folder: Path, stop: Callable[[], bool]
) -> dict[str, Any]:
    """The figures of one trial; see docs/experiments.md."""
    if not config.get("valid"):
        raise ConfigError("valid is missing: all arms need the same held-out text")
    settings = settings_of(config, seed, folder)
    result = phi_train_run(settings, resume=True, progress=_Asking(stop))
    if result.evaluation is None:  # a signal ended it
        from phi_train.experiment import Stopped  # noqa: PLC0415

        raise Stopped
    return figures_of(result, settings, unigram_level(config, settings))


def settings_of(config: Mapping[str, Any], seed: int, folder: Path) -> TrainConfig:
    """The run's settings; writes its text and its tokenizer into `folder`."""
    known = {field.name for field in fields(TrainConfig)}
    given = {k: v for k, v in config.items() if k in known}
    settings = TrainConfig.from_dict(given | {"seed": seed, "out": str(folder / "run")})
    corpus = open_corpus(settings.data, settings.valid)
    tokenizer, text = folder / "tokenizer.json", folder / "train.txt"
    if not tokenizer.exists():
        Tokenizer.train(
            corpus.train, vocab_size=settings.vocab_size, special_tokens=[END_OF_TEXT]
        ).save(tokenizer)
    chosen = corpus.train[: config.get("documents", 0) or None]
    if not text.exists():
        with atomic_write(text) as file:
            file.write(END_OF_TEXT.join(chosen).encode())
    return replace(settings, data=str(text), tokenizer=str(tokenizer))


def unigram_level(config: Mapping[str, Any], settings: TrainConfig) -> float:
    """Nats a token of a unigram model counted on all of the training text, held out."""
    tokenizer = Tokenizer.load(settings.tokenizer)
    corpus = open_corpus(config["data"], config["valid"])
    counted, held_out = (encode_documents(part, tokenizer) for part in (corpus.train, corpus.valid))
    model = KneserNey(counted, vocab_size=tokenizer.n_vocab, order=1)
    return float(-np.log(model.probabilities(held_out, 1)).mean())


def figures_of(result: TrainResult, settings: TrainConfig, unigram: float) -> dict[str, Any]:
    """What a finished run came to; unigram: the level to be left, nats a token."""
    checkpoint = load_checkpoint(result.folder.last)
    tokenizer = Tokenizer.load(settings.tokenizer)
    stream = encode_documents(documents_to_measure(settings.data)[0], tokenizer)
    part = replace(stream, ids=stream.ids[:TRAIN_TOKENS])
    losses, looks, seconds = _curves(result.folder.metrics)
    tokens = result.step * settings.tokens_per_step
    shape = checkpoint.model.config
    assert result.evaluation is not None
    return {
        "loss": result.evaluation.loss,
        "bits_per_byte": result.evaluation.bits_per_byte,
        "train_loss": evaluate(checkpoint.model, part).loss,
        "distinct_tokens": stream.ids.size,
        "best_loss": min([value for _, value in looks] + [result.evaluation.loss]),
        **drops(losses, unigram),
        "steps": result.step,
        "tokens": tokens,
        "seconds": seconds,
        "flops": float(shape.flops_per_token(settings.seq_len) * tokens),
        "parameters": shape.n_parameters,
        "non_embedding": shape.n_non_embedding,
        "curves": {"valid_loss": looks, "loss": _means(losses, max(1, len(losses) // 100))},
    }


def drops(losses: list[float], unigram: float) -> dict[str, float]:
    """The steepest fall, and where the unigram level is left, of a training loss by steps."""
    means = [value for _, value in _means(losses, STRETCH)]
    found: dict[str, float] = {}
    first = EARLIEST // STRETCH
    falls = [1 - means[i] / means[i - 2] for i in range(first + 2, len(means))]
    if falls:
        steepest = int(np.argmax(falls))
        found["largest_drop"] = falls[steepest]
        found["drop_at"] = float(STRETCH * (first + 3 + steepest))
    below = [i for i, value in enumerate(means) if value < unigram]
    if below:
        found["wall_left_at"] = float(STRETCH * (below[0] + 1))
    return found


def levels(
    config: Mapping[str, Any], seed: int, folder: Path, stop: Callable[[], bool]
) -> dict[str, Any]:
    """A trial that trains nothing: the n-gram levels, counted on all of the training text."""
    del seed, folder, stop
    corpus = open_corpus(config["data"], config["valid"])
    tokenizer = Tokenizer.train(
        corpus.train, vocab_size=config["vocab_size"], special_tokens=[END_OF_TEXT]
    )
    counted, held_out = (encode_documents(part, tokenizer) for part in (corpus.train, corpus.valid))
    model = KneserNey(counted, vocab_size=tokenizer.n_vocab, order=len(NAMES))
    found = {
        name: float(-np.log(model.probabilities(held_out, order + 1)).mean())
        for order, name in enumerate(NAMES)
    }
    return found | {
        "uniform": math.log(tokenizer.n_vocab),
        "loss": found["trigram"],
        "train_tokens": counted.ids.size,
        "valid_tokens": held_out.ids.size,
        "bytes_per_token": counted.text_bytes / counted.ids.size,
    }


def _curves(path: Path) -> tuple[list[float], list[list[float]], float]:
    """Training loss by step, [step, held-out loss], seconds of all steps."""
    losses, looks, seconds = [], [], 0.0
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "learning_rate" in entry:
            losses.append(entry["loss"])
            seconds += entry["seconds"]
        elif "valid_loss" in entry:
            looks.append([entry["step"], entry["valid_loss"]])
    return losses, looks, seconds


def _means(losses: list[float], stretch: int) -> list[list[float]]:
    """[step, mean of the `stretch` steps up to it]."""
    whole = len(losses) // stretch * stretch
    means = np.reshape(losses[:whole], (-1, stretch)).mean(axis=1)
    return [[stretch * (i + 1), float(mean)] for i, mean in enumerate(means)]
