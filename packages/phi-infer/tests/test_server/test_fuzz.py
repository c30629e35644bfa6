"""Malformed requests, thousands of them, leave the server answering.

Fuzzed JSON, wrong types, huge values, bad UTF-8, broken HTTP, connections that end or stall at any
byte, senders of a byte now and then. The short form runs by default; the long one, 10,000 requests:

    PHI_FUZZ_REQUESTS=10000 pytest packages/phi-infer/tests/test_server/test_fuzz.py
"""

from __future__ import annotations

import json
import os
import random
import select
import socket
import struct
import time

import pytest

N_REQUESTS = int(os.environ.get("PHI_FUZZ_REQUESTS", "400"))
PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/models", "/health", "/", "/nowhere")
VALUES = (
    None, True, False, 0, 1, -1, 3, 10**18, 2**64, -(2**70), 1e308, -1e-308, 0.5, "", "a", "\x00",
    "\ud800", "日本語", "x" * 3000, [], {}, [[]], [None], [1, 2], [1, "a"], ["a", "b"], {"a": 1},
    [{"role": "user", "content": "Hi"}], [{"role": "user"}], [{"role": [], "content": {}}],
    {"299": -100}, {"x": 1}, {"1": "a"}, {"type": "json_object"}, {"include_usage": True},
)  # fmt: skip
FIELDS = (
    "prompt", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k",
    "min_p", "n", "best_of", "stop", "stream", "stream_options", "logprobs", "top_logprobs", "seed",
    "logit_bias", "frequency_penalty", "presence_penalty", "repeat_penalty", "echo", "suffix",
    "model", "user", "tools", "response_format",
)  # fmt: skip
HEADS = (
    b"",
    b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01",
    b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n{",
    b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: " + b"x" * 70_000 + b"\r\n\r\n",
    b"GET /%ff%00%2e%2e/etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: a\r\nOrigin: http://[\r\n\r\n" * 20,
)


def body(rng: random.Random) -> bytes:
    """JSON of odd values; some of it then damaged."""
    content = {name: rng.choice(VALUES) for name in rng.sample(FIELDS, rng.randrange(5))}
    if rng.random() < 0.4:  # the fields that are read first, and by most code
        content[rng.choice(("prompt", "messages"))] = rng.choice(VALUES)
    if rng.random() < 0.7:  # whatever is right ends soon
        content["max_tokens"] = content["max_completion_tokens"] = rng.choice((0, 1, 2, 3))
    data = bytearray(json.dumps(content).encode())
    kind = rng.random()
    if kind < 0.25:
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind < 0.35:
        del data[rng.randrange(len(data)) :]
    elif kind < 0.4:
        data = bytearray(rng.choice((b"[", b'{"a":', b"-", b"1")) * rng.randrange(1, 9000))
    return bytes(data)


def message(rng: random.Random) -> bytes:
    """A request, mostly of sound HTTP."""
    if rng.random() < 0.15:
        return rng.choice(HEADS)
    method, path = rng.choice(("POST", "POST", "POST", "GET", "PUT", "HEAD")), rng.choice(PATHS[:2])
    if rng.random() < 0.2:
        path = rng.choice(PATHS)
    data = body(rng)
    kind = rng.choice(("application/json", "text/plain", "x", ""))
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data


def send(port: int, data: bytes, rng: random.Random) -> bytes | None:
    """The answer; None where this client left before one was due."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        leaves = rng.random() < 0.15
        try:
            client.sendall(data[: rng.randrange(len(data) + 1)] if leaves else data)
            if leaves:
                if rng.random() < 0.5:  # a reset instead of an end
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return None
            if data in HEADS:
                client.shutdown(socket.SHUT_WR)  # the server need not wait for the rest
            answer = b""
            while part := client.recv(65536):
                answer += part
        except (ConnectionResetError, BrokenPipeError):
            return None
        return answer


class Slow:
    """Sends a first part, then a byte now and then, until it is cut off or has an answer."""

    def __init__(self, port: int, data: bytes, rng: random.Random) -> None:
        self._client = socket.create_connection(("127.0.0.1", port), timeout=30)
        first = rng.randrange(len(data) + 1)
        self._rest = data[first:]
        self._client.sendall(data[:first])
        self.answer = b""
        self.ended = False

    def trickle(self) -> None:
        """Another byte; notes what has come meanwhile."""
        try:
            self._client.sendall(self._rest[:1])
            self._rest = self._rest[1:]
            while select.select([self._client], [], [], 0)[0]:
                part = self._client.recv(65536)
                if not part:
                    self.ended = True
                    break
                self.answer += part
        except (ConnectionResetError, BrokenPipeError):
            self.ended = True
        self.ended = self.ended or bool(self.answer and not self._rest)
        if self.ended:
            self._client.close()


@pytest.mark.parametrize("kind", ["gpt", "rwkv7"])
def test_malformed_requests_leave_the_server_answering(start, wait_until, kind, monkeypatch, capfd):
    monkeypatch.setattr("phi_infer.server.run.HEADER_SECONDS", 1.0)
    server = start(kind, slots=3, max_waiting=8, max_tokens=20, max_prompt_tokens=200,
                   max_body_bytes=8000, body_seconds=0.5)  # fmt: skip
    sound = {"prompt": "The bear", "max_tokens": 5, "seed": 1}
    expected = server.ask("/v1/completions", sound)[1]["choices"]
    rng = random.Random(7)
    slow: list[Slow] = []
    statuses: dict[bytes, int] = {}
    for number in range(N_REQUESTS):
        data = message(rng)
        if number % 20 == 0:  # held open while others are served
            slow.append(Slow(server.port, data, rng))
            for sender in slow:
                sender.trickle() if not sender.ended else None
        answer = send(server.port, data, rng)
        if answer:
            assert answer.startswith(b"HTTP/1.1 "), (data, answer)
            assert b"Traceback" not in answer, (data, answer)
            assert b"site-packages" not in answer, (data, answer)
            assert not answer.startswith(b"HTTP/1.1 5"), (data, answer)
            statuses[answer[9:12]] = statuses.get(answer[9:12], 0) + 1
        if number % 100 == 0:
            assert server.ask("/v1/completions", sound)[1]["choices"] == expected
    while going := [sender for sender in slow if not sender.ended]:  # each is cut off at last
        time.sleep(0.02)
        for sender in going:
            sender.trickle()
    assert any(sender.answer.startswith(b"HTTP/1.1 408") for sender in slow)
    assert statuses[b"400"] > N_REQUESTS / 4
    assert statuses[b"200"] > N_REQUESTS / 20
    assert server.ask("/v1/completions", sound)[1]["choices"] == expected
    wait_until(lambda: server.engine.n_running == server.engine.n_waiting == 0)
    wait_until(lambda: not server.server.server_state.connections)
    assert "Traceback" not in capfd.readouterr().err
