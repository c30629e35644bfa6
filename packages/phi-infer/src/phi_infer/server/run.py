"""Serving over TCP: sockets, signals, and clients that are slow on purpose.

After a signal to stop the server takes no more, gives running requests some seconds, then tells
those that are left and ends.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from phi_infer.generator import Generator
from phi_infer.server.api import create_app
from phi_infer.server.settings import Settings

__all__ = ["Server", "bind", "serve"]

HEADER_SECONDS = 15.0  # for the head of a request, from the connection or its first byte
STALLED_SECONDS = 30.0  # in which a client takes nothing of what waits for it
LAST_WORDS_SECONDS = 5.0  # for clients to take what they are told at the end


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that closes on those who neither send nor take."""

    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time for a head."""
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Goes on, with the time for a head while there is none."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop("_head_timer")
        elif self._head_timer is None:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leaves no timer behind."""
        self._stop("_head_timer")
        self._stop("_stall_timer")
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client lags."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._stop("_stall_timer")
        super().resume_writing()

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop(self, name: str) -> None:
        timer = getattr(self, name)
        if timer is not None:
            timer.cancel()
            setattr(self, name, None)


class Server(uvicorn.Server):
    """uvicorn's, ended in the engine's order. started and should_exit are uvicorn's."""

    def __init__(self, app: Starlette, settings: Settings) -> None:
        grace = settings.grace_seconds
        super().__init__(
            uvicorn.Config(
                app,
                http=PatientProtocol,
                ws="none",
                lifespan="on",
                log_level="warning",
                access_log=False,
                server_header=False,
                limit_concurrency=settings.max_connections,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=round(grace + LAST_WORDS_SECONDS),
            )
        )
        self._engine, self._grace = app.state.engine, grace

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes no more; what is left after the grace is told so."""
        self._engine.close()
        asyncio.get_running_loop().call_later(self._grace, self._engine.end)
        await super().shutdown(sockets)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0: any free one. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def serve(
    generator: Generator,
    settings: Settings,
    listener: socket.socket,
    *,
    announce: Callable[[], Any] = lambda: None,
) -> None:
    """Serves until SIGINT or SIGTERM, then returns. announce: called before the first request."""
    server = Server(create_app(generator, settings), settings)
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again when it has ended
        signal.signal(number, lambda *_: None)
    announce()
    server.run(sockets=[listener])
