"""The JSON objects that OpenAI's clients read: of texts and of chats, whole and in chunks.

https://platform.openai.com/docs/api-reference/completions and .../chat
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from phi_infer.request import TokenChoice
from phi_tokenizer import Tokenizer

__all__ = ["ChatShape", "CompletionShape", "Shape", "usage"]

FINISH = {"end": "stop", "stop": "stop", "length": "length", "context": "length"}


def usage(n_prompt: int, n_completion: int) -> dict[str, int]:
    """The counts of tokens."""
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_completion,
        "total_tokens": n_prompt + n_completion,
    }


class Shape:
    """The objects of one request; `kind` and `choice` are a subclass's."""

    prefix = ""
    kinds = ("", "")  # of a whole object, of a chunk

    def __init__(self, model: str, tokenizer: Tokenizer) -> None:
        self._head = {
            "id": f"{self.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }
        self._tokenizer = tokenizer

    def whole(self, choices: Sequence[dict[str, Any]], counts: dict[str, int]) -> dict[str, Any]:
        """The answer to a request that does not stream."""
        return self._head | {"object": self.kinds[0], "choices": list(choices), "usage": counts}

    def chunk(
        self, choices: Sequence[dict[str, Any]], counts: dict[str, int] | None = None
    ) -> dict[str, Any]:
        """One event of a stream."""
        found = self._head | {"object": self.kinds[1], "choices": list(choices)}
        return found if counts is None else found | {"usage": counts}

    def choice(
        self,
        index: int,
        text: str,
        tokens: Sequence[TokenChoice] | None,
        finish: str | None,
        *,
        part: bool,
    ) -> dict[str, Any]:
        """One text, or a part of it. tokens: where log-probabilities were asked for."""
        raise NotImplementedError

    def opening(self, n_texts: int) -> list[dict[str, Any]]:
        """Chunks in front of all others."""
        del n_texts
        return []

    def _text(self, token: int) -> str:
        return self._tokenizer.token_bytes(token).decode(errors="replace")


class CompletionShape(Shape):
    """Of /v1/completions."""

    prefix, kinds = "cmpl", ("text_completion", "text_completion")

    def __init__(self, model: str, tokenizer: Tokenizer) -> None:
        super().__init__(model, tokenizer)
        self._offsets: Counter[int] = Counter()  # index -> characters of the tokens so far

    def choice(
        self,
        index: int,
        text: str,
        tokens: Sequence[TokenChoice] | None,
        finish: str | None,
        *,
        part: bool,
    ) -> dict[str, Any]:
        found = None if tokens is None else self._log_probs(tokens, self._offsets[index])
        if part and found is not None:
            self._offsets[index] += sum(map(len, found["tokens"]))
        finish = None if finish is None else FINISH[finish]
        return {"index": index, "text": text, "logprobs": found, "finish_reason": finish}

    def _log_probs(self, tokens: Sequence[TokenChoice], offset: int) -> dict[str, Any]:
        texts = [self._text(token.id) for token in tokens]
        ends = accumulate(map(len, texts), initial=offset)
        return {
            "tokens": texts,
            "token_logprobs": [token.log_prob for token in tokens],
            "top_logprobs": [
                {self._text(i): p for i, p in reversed(token.alternatives)} for token in tokens
            ],
            "text_offset": list(ends)[: len(texts)],
        }


class ChatShape(Shape):
    """Of /v1/chat/completions."""

    prefix, kinds = "chatcmpl", ("chat.completion", "chat.completion.chunk")

    def choice(
        self,
        index: int,
        text: str,
        tokens: Sequence[TokenChoice] | None,
        finish: str | None,
        *,
        part: bool,
    ) -> dict[str, Any]:
        content = {"content": text} if text or not part else {}
        said = {"delta": content} if part else {"message": {"role": "assistant"} | content}
        return {
            "index": index,
            **said,
            "logprobs": None if tokens is None else {"content": [self._token(t) for t in tokens]},
            "finish_reason": None if finish is None else FINISH[finish],
        }

    def opening(self, n_texts: int) -> list[dict[str, Any]]:
        head = {"delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        return [self.chunk([{"index": i, "logprobs": None} | head]) for i in range(n_texts)]

    def _token(self, token: TokenChoice) -> dict[str, Any]:
        others = [self._one(i, p) for i, p in token.alternatives]
        return self._one(token.id, token.log_prob) | {"top_logprobs": others}

    def _one(self, token: int, log_prob: float) -> dict[str, Any]:
        data = self._tokenizer.token_bytes(token)
        text = data.decode(errors="replace")
        return {"token": text, "logprob": log_prob, "bytes": list(data)}
