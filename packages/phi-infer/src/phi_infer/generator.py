"""Text from a checkpoint, piece by piece.

>>> from phi_infer import load
>>> generator = load("best.phi")                            # doctest: +SKIP
>>> for piece in generator.stream("Once upon a time", max_tokens=100, seed=1):
...     print(piece, end="", flush=True)                    # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_infer.errors import ModelError, SamplingError
from phi_infer.formats import read
from phi_infer.gpt_step import GPTStep
from phi_infer.rwkv7_step import RWKV7Step
from phi_infer.sampling import Sampling, sample
from phi_infer.stop import StopText
from phi_model import Checkpoint
from phi_tokenizer import Tokenizer

__all__ = ["Generator", "load"]

END_OF_TEXT = "<|endoftext|>"


def load(path: str | os.PathLike[str], *, verify: bool = True) -> Generator:
    """The generator of a model file: .phi, .gguf, llama2.c's .bin, a folder in HF's layout.

    verify=False skips the checksums of a .phi. Raises FileNotFoundError, phi_model.CheckpointError,
    FormatError, or ModelError when the model has no tokenizer or one that does not fit it.
    """
    return Generator(read(path, verify=verify))


class Generator:
    """Generates text with one model; holds no state between calls."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        if checkpoint.tokenizer is None:
            raise ModelError(
                f"{checkpoint.path} holds no tokenizer: save it with "
                "save_checkpoint(..., tokenizer=tokenizer.to_bytes())"
            )
        self.config = checkpoint.config
        self.tokenizer = Tokenizer.from_bytes(checkpoint.tokenizer)
        if self.tokenizer.n_vocab > self.config.vocab_size:
            raise ModelError(
                f"{checkpoint.path}: its tokenizer has {self.tokenizer.n_vocab} tokens, its "
                f"model only {self.config.vocab_size}"
            )
        self._parameters: dict[str, NDArray[Any]] = {
            name: np.ascontiguousarray(value, dtype=np.float32)
            for name, value in checkpoint.parameters.items()
        }
        self._end_token = self.tokenizer.special_tokens.get(END_OF_TEXT)

    def stream(
        self,
        prompt: str = "",
        *,
        max_tokens: int = 200,
        stop: str | Sequence[str] = (),
        **sampling: Any,
    ) -> Iterator[str]:
        """The continuation of `prompt` in pieces, each of whole characters.

        max_tokens: tokens drawn at most. stop: a string, or several, that ends the text, itself
        left out.
        sampling: the fields of Sampling (temperature, top_k, top_p, min_p, repeat_penalty, seed).
        Ends at the model's end-of-text token. Raises SamplingError at once, before any text.
        """
        if max_tokens < 0:
            raise SamplingError(f"max_tokens is {max_tokens}; it must be 0 or more")
        stops = [stop] if isinstance(stop, str) else list(stop)
        if not all(stops):
            raise SamplingError("a stop string is empty; leave it out, or give some text")
        return self._stream(prompt, max_tokens, stops, _sampling(sampling))

    def _stream(
        self, prompt: str, max_tokens: int, stop: list[str], sampling: Sampling
    ) -> Iterator[str]:
        decoder, stopper = self.tokenizer.stream_decoder(), StopText(stop)
        for token in self.tokens(prompt, max_tokens=max_tokens, sampling=sampling):
            piece = stopper.feed(decoder.feed(token))
            if piece:
                yield piece
            if stopper.stopped:
                return
        rest = stopper.feed(decoder.flush()) + stopper.flush()
        if rest:
            yield rest

    def tokens(self, prompt: str, *, max_tokens: int, sampling: Sampling) -> Iterator[int]:
        """The continuation as token ids, without the end-of-text token."""
        step = self.new_step()
        seen = self.prompt_ids(prompt)
        logits = np.zeros(self.config.vocab_size, np.float32)
        for token in seen:
            logits = step(token)
        for position in range(max_tokens):
            usable = logits[: self.tokenizer.n_vocab]
            if not np.isfinite(usable).all():
                raise ModelError(
                    "the model's output is not finite: its training diverged; "
                    "use an earlier checkpoint"
                )
            token = sample(usable, sampling, position=position, seen=seen)
            if token == self._end_token:
                return
            yield token
            seen.append(token)
            if position < max_tokens - 1:
                logits = step(token)

    def new_step(self) -> GPTStep | RWKV7Step:
        """The model at the start of a text, to be fed token by token."""
        if self.config.kind == "rwkv7":
            return RWKV7Step(self.config, self._parameters)
        return GPTStep(self.config, self._parameters)

    def prompt_ids(self, prompt: str) -> list[int]:
        """The prompt as the model saw text in training: after an end-of-text token."""
        start = [] if self._end_token is None else [self._end_token]
        ids = start + [int(i) for i in self.tokenizer.encode(prompt, disallowed_special=())]
        if not ids:
            raise SamplingError("the prompt is empty and the model has no start: give a --prompt")
        return ids

    def generate(self, prompt: str = "", **options: Any) -> str:
        """All of stream() as one string."""
        return "".join(self.stream(prompt, **options))


def _sampling(options: dict[str, Any]) -> Sampling:
    unknown = sorted(set(options) - set(Sampling.__dataclass_fields__))
    if unknown:
        known = ", ".join(Sampling.__dataclass_fields__)
        raise SamplingError(
            f"no sampling setting is called {', '.join(unknown)}; there are {known}"
        )
    return Sampling(**options)
