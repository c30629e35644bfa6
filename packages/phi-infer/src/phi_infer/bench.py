"""How fast a model file makes text on this machine, and what it takes.

>>> from phi_infer.bench import bench
>>> print(bench("best.phi").decode_tokens_per_second)  # doctest: +SKIP
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phi_infer.errors import SamplingError
from phi_infer.generator import Generator, load
from phi_infer.steps import new_batch, new_step

__all__ = ["Speed", "bench"]


@dataclass(frozen=True)
class Speed:
    """What bench measured; rates are medians of the rounds."""

    load_ms: float  # opening and verifying the file
    first_token_ms: float  # from there to the first token of a prompt of `prompt_tokens`
    prefill_tokens_per_second: float  # reading a prompt
    decode_tokens_per_second: float  # one text, token by token
    batch_tokens_per_second: float  # `batch` texts side by side, all together
    private_mb: float | None  # memory of this process alone, at the end; None where unknown
    prompt_tokens: int
    tokens: int
    batch: int


def bench(
    path: str | os.PathLike[str],
    *,
    tokens: int = 256,
    prompt_tokens: int = 128,
    batch: int = 8,
    rounds: int = 3,
) -> Speed:
    """Measures the model file at `path` with random token ids, greedy.

    Raises what load raises, and SamplingError for a number below 1.
    """
    for name, value in (
        ("tokens", tokens), ("prompt_tokens", prompt_tokens), ("batch", batch), ("rounds", rounds)
    ):  # fmt: skip
        if value < 1:
            raise SamplingError(f"{name} is {value}; it must be 1 or more")
    start = time.perf_counter()
    generator = load(path)
    loaded = time.perf_counter()
    prompt = np.random.default_rng(0).integers(0, generator.config.vocab_size, prompt_tokens)
    new_step(generator.weights).prefill(prompt).argmax()
    first = time.perf_counter()
    return Speed(
        load_ms=1e3 * (loaded - start),
        first_token_ms=1e3 * (first - loaded),
        prefill_tokens_per_second=_rate(
            lambda: new_step(generator.weights).prefill(prompt), prompt_tokens, rounds
        ),
        decode_tokens_per_second=_rate(_decoder(generator, tokens), tokens, rounds),
        batch_tokens_per_second=_rate(
            _batch_decoder(generator, batch, tokens), tokens * batch, rounds
        ),
        private_mb=_private_mb(),
        prompt_tokens=prompt_tokens,
        tokens=tokens,
        batch=batch,
    )


def _rate(call: Callable[[], object], tokens: int, rounds: int) -> float:
    """Tokens a second of a call that makes so many, after one that is not counted."""
    call()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return tokens / statistics.median(seconds)


def _decoder(generator: Generator, tokens: int) -> Callable[[], None]:
    def decode() -> None:
        step, token = new_step(generator.weights), 0
        for _ in range(tokens):
            token = int(step(token).argmax())

    return decode


def _batch_decoder(generator: Generator, size: int, tokens: int) -> Callable[[], None]:
    def decode() -> None:
        batch = new_batch(generator.weights, size)
        slots = [batch.add([i % generator.config.vocab_size]) for i in range(size)]
        logits = batch.logits
        for _ in range(tokens):
            logits = batch.step(slots, logits.argmax(axis=1))

    return decode


def _private_mb() -> float | None:
    """Linux only: pages that no other process and no file shares."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024 / 1e6
