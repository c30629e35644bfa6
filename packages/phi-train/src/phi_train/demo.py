"""The two-minute demo: from nothing to a story, and how good it is compared with the possible.

A fixed number of steps on the embedded story grammar, so that every machine trains the same
model and the figures in the README can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from phi_infer import Generator
from phi_infer import load as load_generator
from phi_train.config import TrainConfig
from phi_train.corpus import BUILTIN
from phi_train.loop import TrainResult

__all__ = ["StoryCheck", "check_stories", "demo_config", "generator_of", "tell_story"]

SAMPLES = 20
TEMPERATURE = 0.8
LONGEST = 400  # tokens: the longest stories of the grammar have about 300


def demo_config(*, seed: int = 0, out: str = "") -> TrainConfig:
    """The settings of the demo.

    Small batches and a rate just below too much learn most from 1.7 million tokens: 4.5e-3 ends
    at 0.089 bits a byte above the floor, 3e-3 and 2e-3 at 0.056 and 0.060.
    """
    return TrainConfig(
        data=BUILTIN,
        preset="gpt-1m",
        seq_len=256,
        batch_size=4,
        steps=1700,
        optimizer="adamw",
        learning_rate=2.5e-3,
        eval_every=340,
        eval_tokens=20_480,
        checkpoint_every=0,
        seed=seed,
        out=out,
    )


@dataclass(frozen=True)
class StoryCheck:
    """Sampled stories, and which of them the grammar could have told."""

    stories: list[str]
    sound: list[bool]

    @property
    def share(self) -> str:
        """In words."""
        return f"{sum(self.sound)} of {len(self.sound)}"


def check_stories(generator: Generator, *, samples: int = SAMPLES) -> StoryCheck:
    """Samples stories and parses each: words, grammar, who has what and who is where."""
    from phi_train.stories import StoryGrammar  # noqa: PLC0415 (builds the grammar: tens of ms)

    grammar = StoryGrammar()
    texts = [
        generator.generate(temperature=TEMPERATURE, max_tokens=LONGEST, seed=seed).strip()
        for seed in range(samples)
    ]
    return StoryCheck(texts, [grammar.accepts(text) for text in texts])


def tell_story(generator: Generator, check: StoryCheck) -> Iterator[str]:
    """The first sound story of the check once more, in pieces as it is made (else the first)."""
    seed = check.sound.index(True) if True in check.sound else 0
    return generator.stream(temperature=TEMPERATURE, max_tokens=LONGEST, seed=seed)


def generator_of(result: TrainResult) -> Generator:
    """Generates with the finished weights of a run."""
    return load_generator(result.folder.last)
