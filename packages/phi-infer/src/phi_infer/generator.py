"""Text from a model file, piece by piece.

>>> from phi_infer import load
>>> generator = load("best.phi")                            # doctest: +SKIP
>>> for piece in generator.stream("Once upon a time", max_tokens=100, seed=1):
...     print(piece, end="", flush=True)                    # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from phi_infer.batch_run import run_batch
from phi_infer.errors import ModelError, SamplingError
from phi_infer.formats import read
from phi_infer.request import Completion, Request
from phi_infer.sampling import Sampling, log_probabilities
from phi_infer.score import Score
from phi_infer.steps import Step, fold, new_step
from phi_infer.text_state import PromptCache, TextState
from phi_model import Checkpoint
from phi_tokenizer import Tokenizer

__all__ = ["Generator", "load"]

END_OF_TEXT = "<|endoftext|>"
CONTEXTS = ("window", "stop")
MAX_ALTERNATIVES = 100


def load(path: str | os.PathLike[str], *, verify: bool = True, prompt_cache: int = 0) -> Generator:
    """The generator of a model file: .phi, .gguf, llama2.c's .bin, a folder in HF's layout.

    verify=False skips the checksums of a .phi. prompt_cache: see Generator. Raises
    FileNotFoundError, phi_model.CheckpointError, FormatError, or ModelError when the model has no
    tokenizer or one that does not fit it.
    """
    return Generator(read(path, verify=verify), prompt_cache=prompt_cache)


class Generator:
    """Generates text with one model; holds no state between calls but its prompt cache.

    prompt_cache: how many prompts to remember as read, so that a text that begins like one of
    them starts sooner; the text stays the same.
    """

    def __init__(self, checkpoint: Checkpoint, *, prompt_cache: int = 0) -> None:
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
        parameters = {
            name: np.ascontiguousarray(value, dtype=np.float32)
            for name, value in checkpoint.parameters.items()
        }
        self.weights = fold(self.config, parameters)
        self._cache = PromptCache(prompt_cache)
        self._end_token = self.tokenizer.special_tokens.get(END_OF_TEXT)

    # one text

    def stream(self, prompt: str = "", **options: Any) -> Iterator[str]:
        """The continuation of `prompt` in pieces, each of whole characters.

        max_tokens=200: tokens drawn at most. stop=(): a string, or several, that ends the text,
        itself left out. context="window": beyond the trained length a GPT sees the last tokens
        of that number; "stop" ends the text there; an RWKV-7 knows no such limit.
        log_probs=None: how many alternatives to note with each token, see complete().
        state=None: a TextState that the prompt goes on from.
        Further: the fields of Sampling (temperature, top_k, seed, ...).
        Ends at the model's end-of-text token. Raises SamplingError at once, before any text.
        """
        return self.start(prompt, **options)[1]

    def generate(self, prompt: str = "", **options: Any) -> str:
        """All of stream() as one string."""
        return "".join(self.stream(prompt, **options))

    def complete(self, prompt: str = "", **options: Any) -> Completion:
        """All of stream() with its ids, how it ended, and log-probabilities where asked for.

        These are the model's own, before temperature and all else that shapes the draw.
        """
        request, pieces = self.start(prompt, **options)
        for _ in pieces:
            pass
        return request.completion()

    def start(self, prompt: str = "", **options: Any) -> tuple[Request, Iterator[str]]:
        """A request and the pieces of stream(): who shows them can look how it ends."""
        request, read_prompt = self._begin(prompt, **options)
        return request, self._pieces(request, read_prompt)

    def tokens(self, prompt: str, *, max_tokens: int, sampling: Sampling) -> Iterator[int]:
        """The continuation as token ids, without the end-of-text token."""
        ids = self.prompt_ids(prompt)
        request = Request(self.tokenizer, ids, sampling=sampling, max_tokens=max_tokens,
                          end_token=self._end_token)  # fmt: skip
        for token, _ in self._draws(request, lambda: self._read(ids, None)):
            if request.finish != "end":
                yield token

    def _begin(
        self,
        prompt: str,
        *,
        max_tokens: int = 200,
        stop: str | Sequence[str] = (),
        context: str = "window",
        log_probs: int | None = None,
        state: TextState | None = None,
        **sampling: Any,
    ) -> tuple[Request, Callable[[], TextState]]:
        """A request, checked, and what reads its prompt when the first token is due."""
        if max_tokens < 0:
            raise SamplingError(f"max_tokens is {max_tokens}; it must be 0 or more")
        stops = [stop] if isinstance(stop, str) else list(stop)
        if not all(stops):
            raise SamplingError("a stop string is empty; leave it out, or give some text")
        if log_probs is not None and not 0 <= log_probs <= MAX_ALTERNATIVES:
            raise SamplingError(
                f"log_probs is {log_probs}; it must be between 0 and {MAX_ALTERNATIVES}"
            )
        ids = self._ids(prompt, state)
        request = Request(
            self.tokenizer,
            ids,
            sampling=self._sampling(sampling),
            max_tokens=max_tokens,
            stop=stops,
            end_token=self._end_token,
            log_probs=log_probs,
            limit=self._limit(context, len(ids)),
        )
        return request, lambda: self._read(ids, state)

    def _sampling(self, options: dict[str, Any]) -> Sampling:
        unknown = sorted(set(options) - set(Sampling.__dataclass_fields__))
        if unknown:
            known = ", ".join(Sampling.__dataclass_fields__)
            raise SamplingError(
                f"no sampling setting is called {', '.join(unknown)}; there are {known}"
            )
        sampling = Sampling(**options)
        odd = [i for i in sampling.logit_bias if not 0 <= i < self.tokenizer.n_vocab]
        if odd:
            raise SamplingError(
                f"logit_bias names token {odd[0]}; ids go from 0 to {self.tokenizer.n_vocab - 1}"
            )
        return sampling

    def _limit(self, context: str, n_prompt: int) -> int | None:
        if context not in CONTEXTS:
            raise SamplingError(f"context is {context!r}; it must be {' or '.join(CONTEXTS)}")
        if context == "window" or self.config.kind == "rwkv7":
            return None
        limit = self.config.seq_len
        if n_prompt > limit:
            raise SamplingError(
                f"the prompt has {n_prompt} tokens, more than the model's context of {limit}: "
                "shorten it, or choose the context window"
            )
        return limit

    def _pieces(self, request: Request, read: Callable[[], TextState]) -> Iterator[str]:
        for _, piece in self._draws(request, read):
            if piece:
                yield piece

    def _draws(self, request: Request, read: Callable[[], TextState]) -> Iterator[tuple[int, str]]:
        state: TextState | None = None
        token = 0
        while request.finish is None:
            if state is None:
                state = read()
            else:
                state.advance(token)
            token, piece = request.draw(state.logits)
            yield token, piece

    # what was read

    def new_step(self) -> Step:
        """The model at the start of a text, to be fed token by token."""
        return new_step(self.weights)

    def read(self, text: str = "", *, state: TextState | None = None) -> TextState:
        """The model after `text`, or after a state and `text`: for stream(..., state=...).

        A state is not used up: any number of texts may go on from it.
        """
        return self._read(self._ids(text, state), state)

    def save_state(self, state: TextState, path: str | os.PathLike[str]) -> None:
        """Writes a state to a file, whole or not at all."""
        state.save(path, self.weights)

    def load_state(self, path: str | os.PathLike[str]) -> TextState:
        """What save_state wrote. Raises OSError, or FormatError for another model's state."""
        return TextState.load(path, self.weights, window=None)

    def _read(self, ids: list[int], state: TextState | None) -> TextState:
        """A state of its own after `ids`, which begin with those of `state`."""
        found = state.copy() if state is not None else self._cache.find(ids)
        if found is None:
            step = self.new_step()
            found = TextState(ids, step, step.prefill(ids))
        else:
            found.read(ids[len(found.ids) :])
        self._cache.keep(found)
        return found

    def _ids(self, text: str, state: TextState | None) -> list[int]:
        if state is None:
            return self.prompt_ids(text)
        if not state.fits(self.weights):
            raise ModelError("the state is another model's: read its text again with this one")
        return state.ids + self._encode(text)

    def _encode(self, text: str) -> list[int]:
        return [int(i) for i in self.tokenizer.encode(text, disallowed_special=())]

    def prompt_ids(self, prompt: str) -> list[int]:
        """The prompt as the model saw text in training: after an end-of-text token."""
        start = [] if self._end_token is None else [self._end_token]
        ids = start + self._encode(prompt)
        if not ids:
            raise SamplingError("the prompt is empty and the model has no start: give a --prompt")
        return ids

    # many texts

    def generate_batch(self, prompts: Sequence[str], **options: Any) -> list[str]:
        """The texts of complete_batch()."""
        return [completion.text for completion in self.complete_batch(prompts, **options)]

    def complete_batch(
        self, prompts: Sequence[str], *, slots: int = 32, workers: int = 1, **options: Any
    ) -> list[Completion]:
        """A continuation of each prompt, made side by side, `slots` at a time.

        options: as of stream(). Prompt i has the seed `seed` + i, and its text is the one that
        generate() makes with that seed (they may differ where logits tie within 1e-5: sums are
        taken in another order). workers: processes that share the slots. Prompts are looked up in
        the prompt cache, but not added to it.
        """
        if slots < 1 or workers < 1:
            raise SamplingError(f"{slots} slots and {workers} workers; both must be 1 or more")
        state: TextState | None = options.get("state")
        first = self._sampling({"seed": options.pop("seed", 0)}).seed
        requests = [
            self._begin(prompt, seed=(first + i) % 2**64, **options)[0]
            for i, prompt in enumerate(prompts)
        ]
        find = self._cache.find if state is None else lambda _: state
        run_batch(self.weights, requests, slots=slots, workers=workers, find=find)
        return [request.completion() for request in requests]

    # measuring

    def score(self, text: str, *, end: bool = False) -> Score:
        """log p of each token of `text`, read as a document; a GPT sees its context at most.

        end: the end-of-text token is predicted and counted too, as in a loss on documents.
        Raises ModelError for a tokenizer without that token: the first one would have no
        probability.
        """
        if self._end_token is None:
            raise ModelError(f"the tokenizer has no {END_OF_TEXT}, so texts have no start to score")
        ids = self._encode(text) + ([self._end_token] if end else [])
        step, before = self.new_step(), self._end_token
        log_probs = []
        for token in ids:
            p = log_probabilities(step(before)[: self.tokenizer.n_vocab])
            log_probs.append(float(p[token]))
            before = token
        return Score(ids, log_probs, len(text.encode()))
