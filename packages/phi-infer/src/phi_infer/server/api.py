"""The routes: OpenAI's three, /health, /metrics, and the page.

app = create_app(load("best.phi"), Settings(name="stories"))       # an ASGI application
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from phi_infer.generator import Generator
from phi_infer.rwkv7_weights import RWKV7Weights
from phi_infer.server.body import read_json
from phi_infer.server.engine import Engine, Job
from phi_infer.server.errors import RequestError
from phi_infer.server.guard import Guard
from phi_infer.server.metrics import Metrics
from phi_infer.server.orders import Order, chat_order, completion_order
from phi_infer.server.replies import Reply, ring
from phi_infer.server.settings import Settings
from phi_infer.server.shapes import ChatShape, CompletionShape, Shape
from phi_model import RWKV7State

__all__ = ["create_app"]

Reader = Callable[[Mapping[str, Any], Generator, Settings], Order]

PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create_app(generator: Generator, settings: Settings | None = None) -> Starlette:
    """An ASGI application; its lifespan starts and ends the engine's thread.

    app.state.engine is the Engine: close() it to take no more, end() it to give up the rest.
    """
    server = _Server(generator, settings or Settings())
    routes = [
        Route("/v1/completions", server.completions, methods=["POST"]),
        Route("/v1/chat/completions", server.chat, methods=["POST"]),
        Route("/v1/models", server.models),
        Route("/v1/models/{name:path}", server.model),
        Route("/health", server.health),
        Route("/metrics", server.show_metrics),
        Route("/", server.page),
    ]
    paths = frozenset(route.path for route in routes if "{" not in route.path)
    middleware = []
    if server.settings.cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=server.settings.cors_origins,
                allow_methods=["GET", "POST"],
                allow_headers=["*"],  # OpenAI's client for browsers sends many of its own
            )
        )
    middleware.append(
        Middleware(Guard, settings=server.settings, metrics=server.metrics, paths=paths)
    )
    app = Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={
            RequestError: _refused,
            HTTPException: _not_found,
            Exception: _failed,
        },
        lifespan=server.lifespan,
    )
    app.state.engine = server.engine
    return app


class _Server:
    def __init__(self, generator: Generator, settings: Settings) -> None:
        self.generator, self.settings = generator, settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self.engine = Engine(
            generator,
            slots=settings.slots,
            max_waiting=settings.max_waiting,
            listener=self._tell,
            workers=settings.workers,
        )
        self.metrics = Metrics(self.engine)
        self._reader = ThreadPoolExecutor(1, "phi-reader")  # tokenizes; the loop goes on
        self._created = int(time.time())
        self._page = files("phi_infer.server").joinpath("page.html").read_text(encoding="utf-8")

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        self.engine.start()
        try:
            yield
        finally:
            self.engine.end()
            await asyncio.to_thread(self.engine.join, 10.0)
            self._reader.shutdown(wait=False, cancel_futures=True)

    def _tell(self, jobs: Sequence[Job]) -> None:
        """In the engine's thread; one call for all jobs of a round."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(ring, jobs)

    async def completions(self, request: Request) -> Any:
        return await self._answer(request, completion_order, CompletionShape)

    async def chat(self, request: Request) -> Any:
        return await self._answer(request, chat_order, ChatShape)

    async def _answer(self, request: Request, reader: Reader, shape: type[Shape]) -> Reply:
        deadline = time.monotonic() + self.settings.request_seconds
        content = await read_json(request, self.settings)
        order = await asyncio.get_running_loop().run_in_executor(
            self._reader, reader, content, self.generator, self.settings
        )
        made = shape(self.settings.name, self.generator.tokenizer)
        return Reply(self.engine, order, made, deadline=deadline)

    async def models(self, _request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        if request.path_params["name"] != self.settings.name:
            raise RequestError(404, "there is no model of that name", code="model_not_found")
        return JSONResponse(self._model())

    def _model(self) -> dict[str, Any]:
        config, weights = self.generator.config, self.generator.weights
        facts: dict[str, Any] = {
            "kind": config.kind,
            "parameters": config.n_parameters,
            "context": config.seq_len,
            "max_tokens": self.settings.max_tokens,
        }
        if isinstance(weights, RWKV7Weights):
            facts["state_bytes"] = RWKV7State.zeros(config).nbytes
        return {
            "id": self.settings.name,
            "object": "model",
            "created": self._created,
            "owned_by": "phi-infer",
            "phi": facts,
        }

    async def health(self, _request: Request) -> Response:
        alive = self.engine.alive
        return JSONResponse({"status": "ok" if alive else "stopped"}, 200 if alive else 503)

    async def show_metrics(self, _request: Request) -> Response:
        return PlainTextResponse(
            self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    async def page(self, _request: Request) -> Response:
        headers = {"content-security-policy": PAGE_POLICY, "x-content-type-options": "nosniff"}
        return HTMLResponse(self._page, headers=headers)


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    headers = {"retry-after": "1"} if error.status == 429 else None
    return JSONResponse(error.json, error.status, headers)


async def _not_found(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = {404: "there is nothing at this address", 405: "this address takes another method"}
    told = RequestError(error.status_code, text.get(error.status_code, error.detail))
    return JSONResponse(told.json, error.status_code, error.headers)


async def _failed(_request: Request, _error: Exception) -> Response:
    return JSONResponse(RequestError(500, "the server failed at this request").json, 500)
