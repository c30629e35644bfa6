"""Serving over TCP: sockets, signals, and clients that are slow on purpose.

After a signal to stop the server takes no more, gives running requests some seconds, then tells
those that are left and ends. A second signal ends that patience.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from phi_infer.errors import PhiInferError
from phi_infer.generator import Generator
from phi_infer.server.api import create_app
from phi_infer.server.settings import Settings

if sys.platform != "win32":
    import resource

__all__ = ["Server", "bind", "connections_allowed", "serve"]

HEADER_SECONDS = 15.0  # for the head of a request, from the connection or its first byte
STALLED_SECONDS = 30.0  # in which a client takes nothing of what waits for it
LAST_WORDS_SECONDS = 5.0  # for clients to take what they are told at the end
QUEUED = 2048  # connections in the kernel's queue
ACCEPTED = 64  # in one round of the event loop
CROWD = 64  # connections beyond the limit that are told so; others are closed unheard
SPARE_FILES = CROWD + 5 * ACCEPTED  # closing one takes some rounds
REMEDIES = {
    errno.EADDRINUSE: "the address is in use; choose another port",
    errno.EADDRNOTAVAIL: "not an address of this machine; choose another --host",
    errno.EACCES: "that is not allowed; choose a port above 1023",
}


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that closes on those who neither send nor take."""

    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time for a head; too many are not even heard."""
        super().connection_made(transport)
        self._wait_for_head()
        if len(self.connections) > (self.limit_concurrency or 0) + CROWD:
            transport.abort()

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
        self._wait_for_reader()

    def _wait_for_reader(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._stall_timer = self.loop.call_later(STALLED_SECONDS, self._look_at_reader, left)

    def _look_at_reader(self, left: int) -> None:
        """Goes on waiting for a client that took some of the `left` bytes; else gives it up."""
        if self.transport.get_write_buffer_size() < left:
            self._wait_for_reader()
        else:
            self.transport.abort()

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
        self._engine, self._grace = app.state.engine, settings.grace_seconds
        self._loop: asyncio.AbstractEventLoop | None = None  # while it shuts down
        self._in_main_loop = self._was_told = self._impatient = False
        super().__init__(
            uvicorn.Config(
                app,
                http=PatientProtocol,
                ws="none",
                lifespan="on",
                log_level="error",  # a warning is anyone's to cause, any number of times
                access_log=False,
                server_header=False,
                backlog=ACCEPTED,
                limit_concurrency=connections_allowed(settings.max_connections),
                timeout_keep_alive=30,
                timeout_graceful_shutdown=round(self._grace + LAST_WORDS_SECONDS),
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """At a signal. uvicorn would drop everything at the second one, and tell nobody."""
        del sig, frame
        self._impatient, self._was_told = self._was_told, True
        if self._in_main_loop:
            self.should_exit = True
        if self._impatient and self._loop is not None:
            self._loop.call_soon_threadsafe(self._hurry)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens; asyncio takes its `backlog` for the queue's length, too."""
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(QUEUED)

    async def main_loop(self) -> None:
        """Not left earlier: some versions of uvicorn then end without a shutdown."""
        self._in_main_loop = True
        self.should_exit = self.should_exit or self._was_told
        await super().main_loop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes no more; what is left after the grace is told so."""
        self._engine.close()
        self._loop = asyncio.get_running_loop()
        self._loop.call_later(0 if self._impatient else self._grace, self._engine.end)
        await super().shutdown(sockets)

    def _hurry(self) -> None:
        self._engine.end()
        asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._hang_up)

    def _hang_up(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def connections_allowed(wanted: int) -> int:
    """As many as the process may have open files for, which it asks for first.

    Without a file for a connection, accepting fails again and again.
    """
    if sys.platform == "win32":
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted + SPARE_FILES:
        return wanted
    more = wanted + SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        more = min(more, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
        soft = more
    return max(1, min(wanted, soft - SPARE_FILES))


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0: any free one. Raises PhiInferError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise PhiInferError(f"--host {host}: no such address; give one of this machine") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(QUEUED)
    except OSError as error:
        listener.close()
        remedy = REMEDIES.get(error.errno or 0, f"{error.strerror}; choose another one")
        raise PhiInferError(f"{host}, port {port}: {remedy}") from None
    return listener


def serve(
    generator: Generator,
    settings: Settings,
    host: str,
    port: int,
    *,
    announce: Callable[[int], Any] = lambda _port: None,
) -> None:
    """Serves until SIGINT or SIGTERM, then returns. announce: told the port when it listens."""
    server = Server(create_app(generator, settings), settings)  # forks: no socket is there yet
    listener = bind(host, port)
    for number in (signal.SIGINT, signal.SIGTERM):  # until uvicorn listens to them itself
        signal.signal(number, server.handle_exit)
    announce(listener.getsockname()[1])
    server.run(sockets=[listener])
