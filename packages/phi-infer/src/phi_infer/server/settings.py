"""Every limit of the server in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass

from phi_infer.errors import PhiInferError

__all__ = ["Settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the server allows. Raises PhiInferError for a limit that allows nothing."""

    name: str = "phi"  # of the model, as clients see it
    slots: int = 16  # texts made side by side
    workers: int = 1  # processes that share the slots
    max_waiting: int = 64  # texts that may wait for a slot; beyond: 429
    max_body_bytes: int = 256 * 1024  # of a request's JSON
    max_prompt_tokens: int = 8192  # all prompts of a request together
    max_tokens: int = 4096  # that one text may ask for
    max_choices: int = 16  # texts of one request
    body_seconds: float = 15.0  # for a request to arrive, from its first byte
    request_seconds: float = 300.0  # for all its texts, the wait for a slot included
    grace_seconds: float = 20.0  # for running requests after a signal to stop
    max_connections: int = 1024
    api_key: str | None = None
    cors_origins: tuple[str, ...] = ()  # sites whose pages may ask; "*": any
    hosts: tuple[str, ...] | None = None  # names this server answers to; None: any

    def __post_init__(self) -> None:
        for name in (
            "slots",
            "workers",
            "max_body_bytes",
            "max_prompt_tokens",
            "max_tokens",
            "max_choices",
            "body_seconds",
            "request_seconds",
            "max_connections",
        ):
            if not getattr(self, name) > 0:
                raise PhiInferError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("max_waiting", "grace_seconds"):
            if not getattr(self, name) >= 0:
                raise PhiInferError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not math.isfinite(self.grace_seconds):
            raise PhiInferError(f"grace_seconds is {self.grace_seconds}; it must be finite")
        if self.workers > self.slots:
            raise PhiInferError(f"{self.workers} workers for {self.slots} slots: give one to each")
        if self.api_key is not None and not self.api_key.isascii():
            raise PhiInferError("the API key has characters beyond ASCII, which HTTP cannot carry")
        if self.api_key is not None and self.api_key != self.api_key.strip():
            raise PhiInferError("the API key begins or ends with a blank, which HTTP takes away")
