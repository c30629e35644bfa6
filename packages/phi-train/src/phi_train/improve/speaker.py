"""A model that continues prompts, many side by side: what sampling needs of phi-infer."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from phi_infer import Generator
from phi_model import Checkpoint, LanguageModel

__all__ = ["Speaker", "seed_of"]

SLOTS = 32  # texts side by side


class Speaker:
    """Continues prompts with the weights that `model` has now; a text ends at its end token."""

    def __init__(self, model: LanguageModel, tokenizer: bytes, *, workers: int = 1) -> None:
        tensors = {f"model/{name}": value.copy() for name, value in model.parameters.items()}
        self._workers = workers
        self.generator = Generator(
            Checkpoint(
                path=Path("the model in training"),
                config=model.config,
                step=0,
                tokenizer=tokenizer,
                metadata={},
                tensors=tensors,
            )
        )

    def __call__(
        self, prompts: Sequence[str], *, max_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        """A continuation of each; temperature 0: the likeliest token each time."""
        if not prompts:
            return []
        return self.generator.generate_batch(
            list(prompts),
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            slots=SLOTS,
            workers=min(self._workers, len(prompts)),
        )


def seed_of(*names: object) -> int:
    """A seed for each purpose, the same for ever.

    >>> seed_of(0, "star", 1) != seed_of(0, "star", 2)
    True
    """
    digest = blake2b(repr(names).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")
