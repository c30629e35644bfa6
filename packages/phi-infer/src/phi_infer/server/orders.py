"""From a request's JSON to what has to be made: an Order, with everything checked."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phi_infer.errors import SamplingError
from phi_infer.generator import END_OF_TEXT, Generator
from phi_infer.request import Request
from phi_infer.sampling import Sampling
from phi_infer.server.errors import RequestError
from phi_infer.server.fields import Fields, clean_text
from phi_infer.server.settings import Settings

__all__ = ["Order", "chat_order", "chat_prompt", "completion_order"]

DEFAULT_TOKENS = 200
MAX_ALTERNATIVES = 20
MAX_STOPS, MAX_STOP_CHARACTERS = 16, 1000
MAX_BIASES = 1024
ROLES = ("system", "developer", "user", "assistant")


@dataclass(frozen=True)
class Order:
    """The texts that one HTTP request asks for, in the order of their index."""

    texts: list[Request]
    n_prompt_tokens: int
    stream: bool
    include_usage: bool  # a last chunk with the counts
    log_probs: int | None  # alternatives with each token


def completion_order(content: Mapping[str, Any], generator: Generator, limits: Settings) -> Order:
    """Of /v1/completions. Raises RequestError 400."""
    fields = Fields(content)
    fields.refuse("suffix", "echo")
    best_of = fields.integer("best_of", 1, limits.max_choices, default=1)
    if best_of > fields.integer("n", 1, limits.max_choices, default=1):
        raise RequestError(400, "best_of above n is not supported by this server", param="best_of")
    asked = fields.integer("logprobs", 0, MAX_ALTERNATIVES, default=-1)
    prompts = _prompts(fields.get("prompt"), generator, limits)
    return _order(fields, prompts, generator, limits, log_probs=None if asked < 0 else asked)


def chat_order(content: Mapping[str, Any], generator: Generator, limits: Settings) -> Order:
    """Of /v1/chat/completions. Raises RequestError 400."""
    fields = Fields(content)
    fields.refuse("tools", "functions", "audio")
    if Fields(fields.object("response_format")).get("type") not in (None, "text"):
        raise RequestError(400, "this server makes text only", param="response_format")
    n_alternatives = fields.integer("top_logprobs", 0, MAX_ALTERNATIVES, default=0)
    log_probs = n_alternatives if fields.flag("logprobs") else None
    prompt = _encode(chat_prompt(fields.get("messages")), "messages", generator, limits)
    return _order(fields, [prompt], generator, limits, log_probs=log_probs, stop=["\nUser:"])


def chat_prompt(messages: Any) -> str:
    """The text that a model of plain text continues as the assistant.

    >>> chat_prompt([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}])
    'Be kind.\\n\\nUser: Hi\\nAssistant:'
    """
    if type(messages) is not list or not messages:
        raise RequestError(400, "messages must be a list, not an empty one", param="messages")
    text = ""
    for message in messages:
        if type(message) is not dict or message.get("role") not in ROLES:
            raise RequestError(
                400, f"messages: each is an object with a role of {', '.join(ROLES)}",
                param="messages",
            )  # fmt: skip
        said = _said(message.get("content")).strip()
        if message["role"] in ("system", "developer"):
            text += f"{said}\n\n"
        else:
            text += f"{message['role'].capitalize()}: {said}\n"
    return text + "Assistant:"


def _said(content: Any) -> str:
    """What a message says: a string, or a list of parts of text."""
    if content is None:
        return ""
    if type(content) is not list:
        return clean_text("content", content)
    for part in content:
        if type(part) is not dict or part.get("type") not in ("text", "input_text"):
            raise RequestError(400, "content: this server reads text only", param="messages")
    return "".join(clean_text("text", part.get("text")) for part in content)


def _order(
    fields: Fields,
    prompts: list[list[int]],
    generator: Generator,
    limits: Settings,
    *,
    log_probs: int | None,
    stop: list[str] | None = None,
) -> Order:
    if fields.get("model") is not None:
        clean_text("model", fields.get("model"))  # any name: there is one model
    n_each = fields.integer("n", 1, limits.max_choices, default=1)
    if n_each * len(prompts) > limits.max_choices:
        raise RequestError(
            400, f"{n_each * len(prompts)} texts; a request may ask for {limits.max_choices}",
            param="n",
        )  # fmt: skip
    if n_each * len(prompts) > limits.slots + limits.max_waiting:
        raise RequestError(400, f"n: this server has room for {limits.slots + limits.max_waiting} "
                                "texts at a time", param="n")  # fmt: skip
    stops = fields.texts("stop", MAX_STOPS, MAX_STOP_CHARACTERS) + (stop or [])
    sampling = _sampling(fields, generator)
    seed = fields.integer("seed", -(2**63), 2**64 - 1, default=secrets.randbelow(2**63))
    max_tokens = _max_tokens(fields, limits)
    end_token = generator.tokenizer.special_tokens.get(END_OF_TEXT)
    texts = [
        Request(
            generator.tokenizer,
            ids,
            sampling=Sampling(**sampling, seed=(seed + i) % 2**64),
            max_tokens=max_tokens,
            stop=stops,
            end_token=end_token,
            log_probs=log_probs,
        )
        for i, ids in enumerate(ids for ids in prompts for _ in range(n_each))
    ]
    usage = Fields(fields.object("stream_options")).flag("include_usage")
    n_prompt = sum(map(len, prompts))
    return Order(texts, n_prompt, fields.flag("stream"), usage, log_probs)


def _max_tokens(fields: Fields, limits: Settings) -> int:
    default = min(DEFAULT_TOKENS, limits.max_tokens)
    default = fields.integer("max_tokens", 0, limits.max_tokens, default=default)
    return fields.integer("max_completion_tokens", 0, limits.max_tokens, default=default)


def _sampling(fields: Fields, generator: Generator) -> dict[str, Any]:
    """All fields of Sampling but the seed."""
    n_vocab = generator.tokenizer.n_vocab
    biases = fields.object("logit_bias")
    if len(biases) > MAX_BIASES:
        raise RequestError(400, f"logit_bias has more than {MAX_BIASES} tokens", param="logit_bias")
    for name in biases:
        if not (name.isascii() and name.isdigit() and len(name) < 8 and int(name) < n_vocab):
            raise RequestError(
                400, f"logit_bias: a name is no token; ids go from 0 to {n_vocab - 1}",
                param="logit_bias",
            )  # fmt: skip
    bias = Fields(biases)
    options: dict[str, Any] = {
        "temperature": fields.number("temperature", 0, 100, default=1.0),
        "top_k": fields.integer("top_k", 0, 2**31, default=0),
        "top_p": fields.number("top_p", 0, 1, default=1.0),
        "min_p": fields.number("min_p", 0, 1, default=0.0),
        "repeat_penalty": fields.number("repeat_penalty", 0.01, 100, default=1.0),
        "frequency_penalty": fields.number("frequency_penalty", -2, 2, default=0.0),
        "presence_penalty": fields.number("presence_penalty", -2, 2, default=0.0),
        "logit_bias": {int(name): bias.number(name, -100, 100, default=0.0) for name in biases},
    }
    try:
        Sampling(**options)
    except SamplingError as error:
        raise RequestError(400, str(error)) from None
    return options


def _prompts(value: Any, generator: Generator, limits: Settings) -> list[list[int]]:
    """A string, a list of strings, a list of ids, or a list of those, as ids."""
    if value is None:
        value = ""
    if type(value) is not list or (value and type(value[0]) is int):
        value = [value]
    if not 0 < len(value) <= limits.max_choices:
        raise RequestError(400, f"prompt: 1 to {limits.max_choices} of them", param="prompt")
    prompts = [_encode(prompt, "prompt", generator, limits) for prompt in value]
    if sum(map(len, prompts)) > limits.max_prompt_tokens:
        raise _too_long("prompt", limits)
    return prompts


def _encode(prompt: Any, name: str, generator: Generator, limits: Settings) -> list[int]:
    if type(prompt) is list:
        ids = _checked_ids(prompt, generator.tokenizer.n_vocab)
    else:
        try:
            ids = generator.prompt_ids(clean_text(name, prompt))
        except SamplingError:
            raise RequestError(
                400, f"{name} is empty, and the model has no start of its own", param=name
            ) from None
    if len(ids) > limits.max_prompt_tokens:
        raise _too_long(name, limits)
    return ids


def _checked_ids(ids: list[Any], n_vocab: int) -> list[int]:
    if not ids or not all(type(i) is int and 0 <= i < n_vocab for i in ids):
        raise RequestError(
            400, f"prompt: a list of token ids holds whole numbers from 0 to {n_vocab - 1}",
            param="prompt",
        )  # fmt: skip
    return ids


def _too_long(name: str, limits: Settings) -> RequestError:
    return RequestError(
        400,
        f"{name} is longer than {limits.max_prompt_tokens} tokens, this server's limit",
        param=name,
        code="context_length_exceeded",
    )
