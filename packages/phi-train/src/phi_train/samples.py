"""Text that the model in training writes, now and then: its progress as a reader sees it."""

from __future__ import annotations

from pathlib import Path

from phi_infer import Generator
from phi_model import Checkpoint, LanguageModel

__all__ = ["Sampler"]


class Sampler:
    """Continues one prompt with the model's weights as they are at each call.

    The draw has a seed of its own, so that sampling changes nothing in training, and samples of
    different steps differ by their weights alone.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: bytes,
        *,
        prompt: str = "",
        max_tokens: int = 100,
        temperature: float = 0.8,
        seed: int = 0,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self.prompt = prompt
        self._options = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}

    def __call__(self) -> str:
        """The continuation, without the prompt."""
        tensors = {f"model/{name}": value for name, value in self._model.parameters.items()}
        now = Checkpoint(
            path=Path("the model in training"),
            config=self._model.config,
            step=0,
            tokenizer=self._tokenizer,
            metadata={},
            tensors=tensors,
        )
        return Generator(now).generate(self.prompt, **self._options)
