"""Servers of small random models, each in a thread, spoken to over TCP."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from phi_infer import Generator, load
from phi_infer.server.api import create_app
from phi_infer.server.run import Server, bind
from phi_infer.server.settings import Settings
from phi_model import ModelConfig, build_model, save_checkpoint
from phi_tokenizer import Tokenizer

SECONDS = 30.0  # for any one answer


class Running:
    """A server that runs, and the plainest client: a new connection for each request."""

    def __init__(self, generator: Generator, **settings: Any) -> None:
        self.generator, self.settings = generator, Settings(**{"slots": 4} | settings)
        self.app = create_app(generator, self.settings)
        self.engine = self.app.state.engine
        self.server = Server(self.app, self.settings)
        self.listener = bind("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self._thread.start()
        wait_until(lambda: self.server.started)

    def stop(self) -> None:
        """As after a signal."""
        self.server.should_exit = True
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)

    def ask(
        self, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON; body: JSON, or bytes as they are."""
        connection = self.connect()
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("GET" if data is None else "POST", path, data, headers or {})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        is_json = answer.getheader("content-type") == "application/json"
        return answer.status, json.loads(content) if is_json else content.decode()

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[Any]:
        """Each event's JSON; closing the generator hangs up."""
        connection = self.connect()
        connection.request("POST", path, json.dumps(body | {"stream": True}).encode())
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        assert answer.getheader("content-type").startswith("text/event-stream")
        try:
            while line := answer.readline():
                if line.startswith(b"data: ") and line != b"data: [DONE]\n":
                    yield json.loads(line[6:])
        finally:
            answer.close()
            connection.close()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.005)


@pytest.fixture(name="wait_until", scope="session")
def wait_until_() -> Callable[[Callable[[], bool]], None]:
    return wait_until


@pytest.fixture(scope="session")
def models(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer
) -> Callable[[str], Generator]:
    """kind -> a generator of random weights; a new model's are too small to matter."""
    made: dict[str, Generator] = {}

    def get(kind: str) -> Generator:
        if kind not in made:
            config = ModelConfig(
                kind=kind, n_embd=16, n_layer=2, n_head=2, seq_len=16, vocab_size=300
            )
            model = build_model(config, seed=1)
            rng = np.random.default_rng(1)
            for value in model.parameters.values():
                value[...] += rng.standard_normal(value.shape) * 0.3
            path = tmp_path_factory.mktemp("models") / f"{kind}.phi"
            save_checkpoint(path, model, tokenizer=tokenizer.to_bytes())
            made[kind] = load(path)
        return made[kind]

    return get


@pytest.fixture(scope="session")
def start_one(models: Callable[[str], Generator]) -> Callable[..., Any]:
    """A context manager: a server of its own for a longer time than a test."""

    @contextlib.contextmanager
    def start_(**settings: Any) -> Iterator[Running]:
        running = Running(models("gpt"), **settings)
        yield running
        running.stop()

    return start_


@pytest.fixture
def start(models: Callable[[str], Generator]) -> Iterator[Callable[..., Running]]:
    """start(generator or kind, **settings) -> Running; ended after the test."""
    running = []

    def start_(model: Generator | str = "gpt", **settings: Any) -> Running:
        generator = models(model) if isinstance(model, str) else model
        running.append(Running(generator, **settings))
        return running[-1]

    yield start_
    for server in running:
        server.stop()


@pytest.fixture(scope="module", params=["gpt", "rwkv7"])
def server(request: pytest.FixtureRequest, models: Callable[[str], Generator]) -> Iterator[Running]:
    """One server for a module, of each kind of model."""
    running = Running(models(request.param), name="small")
    yield running
    running.stop()
