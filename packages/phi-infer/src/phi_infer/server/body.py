"""The JSON of a request, within a size and a time, strict: what is not JSON is status 400."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from phi_infer.server.errors import RequestError
from phi_infer.server.settings import Settings

__all__ = ["parse_json", "read_json"]

DISCARDED = 16  # times the limit that are still read, so that the client sees the answer


async def read_json(request: Request, settings: Settings) -> dict[str, Any]:
    """The JSON object that a request carries. Raises RequestError 400, or 408 when it is slow."""
    try:
        async with asyncio.timeout(settings.body_seconds):
            data = await _read(request, settings.max_body_bytes)
    except TimeoutError:
        raise RequestError(408, "the request did not arrive in time", code="timeout") from None
    except ClientDisconnect:
        raise RequestError(400, "the request ended early") from None
    return parse_json(data)


async def _read(request: Request, limit: int) -> bytes:
    data, size = bytearray(), 0
    async for part in request.stream():
        size += len(part)
        if size <= limit:
            data += part
        elif size > DISCARDED * limit:
            break
    if size > limit:
        raise RequestError(
            400, f"the request is larger than {limit} bytes, this server's limit", code="too_large"
        )
    return bytes(data)


def parse_json(data: bytes) -> dict[str, Any]:
    """An object; RequestError 400 for anything else.

    >>> parse_json(b'{"n": 1}')
    {'n': 1}
    """
    try:
        content = json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise RequestError(400, "the request is not UTF-8") from None
    except (ValueError, RecursionError):
        raise RequestError(400, "the request is not JSON") from None
    if type(content) is not dict:
        raise RequestError(400, "the request is not a JSON object")
    return content


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)
