"""One training run for the comparison of optimisers, and the time of a step with each of them.

Everything but the optimiser, its learning rate and its schedule is as `phi-train run` has it:
gpt-1m, warm-up 100 steps, clipping at 1, random windows, 4 x 128 tokens, vocabulary 1024.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from phi_model import GPT, ModelConfig, build_model, shared_zeros
from phi_optim import Optimizer, clip_scale, make_optimizer, schedules
from phi_tokenizer import Tokenizer
from phi_train.batches import RandomWindows
from phi_train.corpus import open_corpus
from phi_train.documents import END_OF_TEXT
from phi_train.evaluate import evaluate
from phi_train.ngram import baselines
from phi_train.tokens import TokenStream, encode_documents

BATCH, LENGTH, VOCABULARY = 4, 128, 1024
WARMUP, FINAL, CLIP = 100, 0.02, 1.0
SLICE = 16_384  # tokens of the validation stream, looked at on the way
LOOK = 50  # steps between two looks; less in a short run, which has at least LOOKS
LOOKS = 20


def prepare(data: str, valid: str, folder: Path) -> None:
    """Tokens of both sides and n-gram levels, in `folder`, made once.

    Raises SystemExit when the folder was made for another text.
    """
    about = {"data": Path(data).name, "bytes": Path(data).stat().st_size, "vocab": VOCABULARY}
    about |= {"valid": Path(valid).name, "valid_bytes": Path(valid).stat().st_size}
    head = folder / "data.json"
    if head.exists():
        if json.loads(head.read_text(encoding="utf-8"))["about"] != about:
            raise SystemExit(f"{folder} was made for another text: name another one with --work")
        return
    corpus = open_corpus(data, valid)
    tokenizer = Tokenizer.train(corpus.train, vocab_size=VOCABULARY, special_tokens=[END_OF_TEXT])
    streams = {
        "train": encode_documents(corpus.train, tokenizer, what=data),
        "valid": encode_documents(corpus.valid, tokenizer, what=valid),
    }
    folder.mkdir(parents=True, exist_ok=True)
    described = {}
    for name, stream in streams.items():
        np.save(folder / f"{name}.npy", stream.ids)
        fields = ("end_token", "n_documents", "text_bytes")
        described[name] = {field: getattr(stream, field) for field in fields}
    train, valid_stream = plain(streams["train"]), plain(streams["valid"])
    levels = {
        "slice": baselines(train, first_tokens(valid_stream), vocab_size=VOCABULARY, order=3),
        "whole": baselines(train, valid_stream, vocab_size=VOCABULARY, order=3),
    }
    text = json.dumps({"about": about, "streams": described, "levels": levels}, indent=1)
    temporary = head.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(head)  # last: it says that all is there


def plain(stream: TokenStream) -> TokenStream:
    """Without what is known of single documents."""
    return TokenStream(stream.ids, stream.end_token, stream.n_documents, stream.text_bytes)


def first_tokens(stream: TokenStream) -> TokenStream:
    """The slice that is looked at on the way."""
    return replace(stream, ids=stream.ids[:SLICE])


def load(folder: Path) -> tuple[TokenStream, TokenStream, dict[str, dict[str, float]]]:
    """(train, valid, n-gram levels) as prepare() left them."""
    head = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    train, valid = (
        TokenStream(ids=np.load(folder / f"{name}.npy"), **head["streams"][name])
        for name in ("train", "valid")
    )
    return train, valid, head["levels"]


def factor(schedule: str, step: int, steps: int) -> float:
    """Of the peak rate, `step` updates having been made."""
    warmup = min(WARMUP, steps // 2)
    if schedule == "constant":
        return schedules.constant(step, steps, warmup_steps=warmup)
    return schedules.warmup_stable_decay(step, steps, warmup_steps=warmup, final=FINAL)


def start(optimizer: str, rate: float, seed: int, workers: int) -> tuple[GPT, Optimizer]:
    """A new model with workers, and its optimiser."""
    shape = ModelConfig.preset("gpt-1m", vocab_size=VOCABULARY, seq_len=LENGTH)
    model = build_model(shape, seed=seed)
    made = make_optimizer(optimizer, model.parameters, learning_rate=rate, allocate=shared_zeros)

    def update(member: int, step: float, now: float, scale: float) -> None:
        made.update(
            model.gradients,
            step=int(step),
            learning_rate=now,
            scale=scale,
            share=member,
            shares=model.workers,
        )

    model.start_workers(workers, batch_size=BATCH, seq_len=LENGTH, jobs={"update": update})
    return model, made


def advance(model: GPT, optimizer: Optimizer, ids: Any, targets: Any, now: float) -> float:
    """One step; the loss before it."""
    loss = model.loss_and_grad(ids, targets)
    if math.isfinite(loss) and math.isfinite(model.gradient_norm):
        optimizer.steps += 1
        model.run_job("update", optimizer.steps, now, clip_scale(model.gradient_norm, CLIP))
        return loss
    return math.nan


def run(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The run that `settings` (optimizer, learning_rate, steps, seed) name, in this process alone.

    curve: [step, loss on the slice]; loss: of the last weights on the whole validation stream,
    None where the run diverged.
    """
    train, valid, _ = load(folder)
    rate, steps, seed = settings["learning_rate"], settings["steps"], settings["seed"]
    model, optimizer = start(settings["optimizer"], rate, seed, workers=1)
    batches = RandomWindows(train, batch_size=BATCH, seq_len=LENGTH, seed=seed)
    every = max(1, min(LOOK, steps // LOOKS))
    curve: list[tuple[int, float]] = []
    began = time.perf_counter()
    for step in range(steps):
        now = rate * factor(optimizer.schedule, step, steps)
        if math.isnan(advance(model, optimizer, *batches(step), now)):
            return settings | {"loss": None, "curve": curve}
        if (step + 1) % every == 0:
            optimizer.eval()
            curve.append((step + 1, round(evaluate(model, first_tokens(valid)).loss, 5)))
            optimizer.train()
    optimizer.eval()
    loss = evaluate(model, valid).loss
    seconds = round(time.perf_counter() - began, 1)
    return (
        settings
        | {"loss": loss if math.isfinite(loss) else None, "curve": curve}
        | {"seconds": seconds}
    )


def step_times(rates: dict[str, float], folder: Path, rounds: int) -> dict[str, float]:
    """optimiser -> median seconds of a step on two workers; the optimisers take turns."""
    train, _, _ = load(folder)
    batches = RandomWindows(train, batch_size=BATCH, seq_len=LENGTH, seed=0)
    calls: dict[str, Callable[[Any, Any], float]] = {}
    for name, rate in rates.items():
        model, optimizer = start(name, rate, seed=0, workers=2)
        calls[name] = stepping(model, optimizer, rate * 0.1)
    times: dict[str, list[float]] = {name: [] for name in rates}
    numbers = itertools.count()
    for turn in range(rounds):
        order = list(rates)
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            for call in range(4):
                ids, targets = batches(next(numbers))
                begun = time.perf_counter()
                calls[name](ids, targets)
                if call:  # the first finds its memory cold
                    times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(found) for name, found in times.items()}


def stepping(model: GPT, optimizer: Optimizer, now: float) -> Callable[[Any, Any], float]:
    """A step of this model."""
    return lambda ids, targets: advance(model, optimizer, ids, targets, now)
