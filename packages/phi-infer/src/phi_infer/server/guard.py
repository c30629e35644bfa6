"""Who may ask: host names, pages of other sites, the API key; and a count of every answer.

A page of another site can make a browser send requests to this machine, even under a name of its
own that points here. So a request must name one of this server's hosts, and one that carries an
Origin must come from this server's own page or a site that was allowed.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from phi_infer.server.errors import RequestError
from phi_infer.server.metrics import Metrics
from phi_infer.server.settings import Settings

__all__ = ["Guard"]

OPEN_PATHS = ("/", "/health")


class Guard:
    """An ASGI application around another."""

    def __init__(
        self, app: ASGIApp, *, settings: Settings, metrics: Metrics, paths: frozenset[str]
    ) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._paths = paths  # counted by name; others together

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests[path, message["status"]] += 1
            await send(message)

        try:
            self._check(Headers(scope=scope), scope["path"])
        except RequestError as error:
            asks = {"www-authenticate": "Bearer"} if error.status == 401 else None
            refusal = JSONResponse(error.json, error.status, asks)
            await refusal(scope, receive, counted)
        else:
            await self._app(scope, receive, counted)

    def _check(self, headers: Headers, path: str) -> None:
        s = self._settings
        host = headers.get("host", "")
        if s.hosts is not None and _name(host) not in s.hosts:
            raise RequestError(403, "this server does not answer to that host name")
        origin = headers.get("origin")
        if origin is not None and not self._allowed(origin, host):
            raise RequestError(403, "pages of other sites may not use this server")
        if s.api_key is not None and path not in OPEN_PATHS:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(given.strip().encode("latin-1"), s.api_key.encode())
            if scheme.lower() != "bearer" or not same:
                raise RequestError(401, "the API key is missing or wrong", code="invalid_api_key")

    def _allowed(self, origin: str, host: str) -> bool:
        if {"*", origin} & set(self._settings.cors_origins):
            return True
        try:
            return urlsplit(origin).netloc == host
        except ValueError:
            return False


def _name(host: str) -> str:
    """Without the port, in small letters.

    >>> _name("Localhost:8000"), _name("[::1]:8000")
    ('localhost', '[::1]')
    """
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()
