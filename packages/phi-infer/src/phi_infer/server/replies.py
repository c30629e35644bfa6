"""From the engine's jobs to a client: all at once as JSON, or as server-sent events.

A client that goes away is noticed at once, and its jobs are cancelled. One that lags gets fewer
and longer chunks: what was made meanwhile goes out together.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.types import Receive, Scope, Send

from phi_infer.request import TokenChoice
from phi_infer.server.engine import Engine, Job, News
from phi_infer.server.errors import RequestError
from phi_infer.server.orders import Order
from phi_infer.server.shapes import Shape, usage

__all__ = ["Reply", "ring"]

EVENTS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # a proxy shall pass each event on
]


def ring(jobs: Sequence[Job]) -> None:
    """Tells the replies that wait for these jobs; in the event loop."""
    for bell in {job.owner for job in jobs}:
        if isinstance(bell, asyncio.Event):
            bell.set()


class Reply:
    """The answer to one order: an ASGI application. Submits at once, so it raises RequestError."""

    def __init__(self, engine: Engine, order: Order, shape: Shape, *, deadline: float) -> None:
        self._order, self._shape = order, shape
        self._bell = asyncio.Event()
        self._gone = False
        self._jobs = [Job(text, deadline=deadline, owner=self._bell) for text in order.texts]
        engine.submit(self._jobs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer; whatever happens, the jobs do not outlive it."""
        del scope
        watcher = asyncio.create_task(self._watch(receive))
        try:
            await (self._send_events(send) if self._order.stream else self._send_whole(send))
        finally:
            watcher.cancel()
            self._cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._cancel()
        self._bell.set()

    def _cancel(self) -> None:
        for job in self._jobs:
            job.cancel()

    async def _news(self) -> AsyncIterator[tuple[int, News]]:
        """What is made, of whichever text, until all are done or the client is gone."""
        going = dict(enumerate(self._jobs))
        while going and not self._gone:
            self._bell.clear()
            for index, job in list(going.items()):
                news = job.take()
                if news.text or news.choices or news.finish:
                    yield index, news
                if news.error is not None:
                    raise news.error
                if news.finish is not None:
                    del going[index]
            if going and not self._gone:
                await self._bell.wait()

    def _counts(self) -> dict[str, int]:
        return usage(self._order.n_prompt_tokens, sum(len(text.ids) for text in self._order.texts))

    def _tokens(self, choices: list[TokenChoice]) -> list[TokenChoice] | None:
        return None if self._order.log_probs is None else choices

    async def _send_whole(self, send: Send) -> None:
        status = 200
        try:
            async for _ in self._news():
                pass
            if self._order.log_probs is None:
                body = self._whole_body()
            else:  # may be megabytes: others' chunks go on meanwhile
                body = await asyncio.to_thread(self._whole_body)
        except RequestError as error:
            status, body = error.status, _dump(error.json)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _whole_body(self) -> bytes:
        choices = [self._whole(i) for i in range(len(self._jobs))]
        return _dump(self._shape.whole(choices, self._counts()))

    def _whole(self, index: int) -> dict[str, Any]:
        text = self._order.texts[index].completion()
        return self._shape.choice(
            index, text.text, self._tokens(text.choices), text.finish, part=False
        )

    async def _send_events(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        async for event in self._events():
            body = b"data: " + event + b"\n\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _events(self) -> AsyncIterator[bytes]:
        shape = self._shape
        for chunk in shape.opening(len(self._jobs)):
            yield _dump(chunk)
        try:
            async for index, news in self._news():
                tokens = self._tokens(news.choices)
                yield _dump(
                    shape.chunk([shape.choice(index, news.text, tokens, news.finish, part=True)])
                )
        except RequestError as error:
            yield _dump(error.json)
        else:
            if self._order.include_usage:
                yield _dump(shape.chunk([], self._counts()))
        yield b"[DONE]"


def _dump(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
