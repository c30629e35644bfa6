"""Small texts and settings for runs that take a second, and ways to break them off."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phi_tokenizer import Tokenizer
from phi_train import TrainConfig
from phi_train.progress import Quiet
from phi_train.tokens import TokenStream

END = "<|endoftext|>"
WORDS = (
    *("the", "a", "bear", "cat", "dog", "bird", "ran", "sat", "saw", "found", "lost", "big", "red"),
    *("blue", "little", "hill", "tree", "river", "stone", "house", "and", "then", "was", "happy"),
    *("sad", "Lily", "Tom", "said", "yes", "no"),
)


class StopAt(Quiet):
    """Asks the run to stop, as Ctrl-C does (or another signal), when so many updates are done."""

    def __init__(self, step: int, number: int = signal.SIGINT) -> None:
        self.at, self.number = step, number

    def step(self, step: int, **_rest: Any) -> None:
        if step == self.at:
            signal.raise_signal(self.number)


class BreakAt(Quiet):
    """Ends the run with no time to save, as a crash does."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, step: int, **_rest: Any) -> None:
        if step == self.at:
            raise InterruptedError("pulled the plug")


class Listener(Quiet):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="session")
def stop_at() -> type[StopAt]:
    return StopAt


@pytest.fixture(scope="session")
def break_at() -> type[BreakAt]:
    return BreakAt


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture(scope="session")
def stories() -> Callable[..., list[str]]:
    """Makes documents of random words; the same seed, the same documents."""

    def make(n: int = 60, *, words: int = 40, seed: int = 0) -> list[str]:
        rng = random.Random(seed)
        return [" ".join(rng.choice(WORDS) for _ in range(words)) + "." for _ in range(n)]

    return make


@pytest.fixture
def corpus(tmp_path: Path, stories: Callable[..., list[str]]) -> Path:
    """A file of 60 documents, some 17 KB."""
    path = tmp_path / "stories.txt"
    path.write_text(END.join(stories()), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tokenizer(stories: Callable[..., list[str]]) -> Tokenizer:
    """300 tokens and an end token among them."""
    return Tokenizer.train(stories(), vocab_size=300, special_tokens=[END])


@pytest.fixture
def settings(corpus: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Settings of a run of a second or so."""

    def make(out: str = "run", **changes: Any) -> TrainConfig:
        small = {
            "data": str(corpus),
            "out": str(tmp_path / out),
            "preset": "gpt-1k",
            "vocab_size": 270,
            "seq_len": 16,
            "batch_size": 4,
            "steps": 24,
            "warmup_steps": 4,
            "eval_every": 6,
            "eval_tokens": 200,
            "checkpoint_every": 8,
            "workers": "1",
            "baselines": False,
        }
        return TrainConfig(**(small | changes))

    return make


@pytest.fixture
def stream() -> Callable[..., TokenStream]:
    """A stream of given ids; the last id of the vocabulary ends documents."""

    def make(ids: Any, vocab_size: int) -> TokenStream:
        array = np.asarray(ids, np.uint16)
        return TokenStream(array, vocab_size - 1, 1, max(1, array.size))

    return make
