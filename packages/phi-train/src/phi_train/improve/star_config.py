"""The settings of a STaR experiment, kept with its results."""

from __future__ import annotations

from dataclasses import dataclass

from phi_train.errors import ConfigError

__all__ = ["StarConfig"]


@dataclass(frozen=True, kw_only=True)
class StarConfig:
    """Raises ConfigError for numbers that make no sense.

    The base is trained on stories without questions and on a few rationales, as many rows of
    these as of those; all else the model has to find by itself.
    """

    preset: str = "gpt-1m"
    seed: int = 0
    vocab_size: int = 384
    seq_len: int = 192
    events: tuple[int, ...] = (1, 2, 3, 4, 5, 6)  # the difficulties, in turn
    stories: int = 12_000  # without questions, for the base
    rationales: int = 500  # examples with one, for the base and for each fine-tuning
    base_steps: int = 2400
    base_learning_rate: float = 2e-3
    iterations: int = 3
    tasks: int = 1500  # new ones in each iteration
    temperatures: tuple[float, ...] = (0.6, 0.8, 1.0)  # of the retries
    steps: int = 500  # of each fine-tuning
    learning_rate: float = 1e-3
    batch_size: int = 16
    development: int = 200  # tasks to choose the iteration by
    test: int = 600
    votes: int = 5  # samples of a majority
    comparisons: bool = True  # with all that is not STaR, see Star.compare
    max_tokens: int = 80  # of a rationale with its answer

    def __post_init__(self) -> None:
        at_least = {
            "stories": 1,
            "rationales": 1,
            "base_steps": 1,
            "iterations": 1,
            "tasks": 1,
            "steps": 1,
            "batch_size": 1,
            "development": 1,
            "test": 1,
            "votes": 1,
            "max_tokens": 1,
            "seed": 0,
        }
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be {least} or more")
        if not self.events or min(self.events) < 0:
            raise ConfigError(f"events are {list(self.events)}; give numbers, 0 or above")
        if not all(t > 0 for t in self.temperatures):
            raise ConfigError(f"temperatures are {list(self.temperatures)}; they must be above 0")
