"""Clients that hang up, ask for too much, are slow, or must not ask at all; and the end."""

from __future__ import annotations

import http.client
import json
import logging
import math
import socket
import threading
import time
from itertools import pairwise

import pytest

from phi_infer.errors import PhiInferError
from phi_infer.request import Request
from phi_infer.server import engine, run
from phi_infer.server.engine import Job
from phi_infer.server.errors import RequestError
from phi_infer.server.settings import Settings

COMPLETIONS = "/v1/completions"
NEVER_ENDS = {"prompt": "The", "max_tokens": 4000, "temperature": 0.7, "logit_bias": {"299": -100}}


@pytest.fixture(params=["gpt", "rwkv7"])
def one_slot(request, start):
    return start(request.param, slots=1, max_waiting=1)


@pytest.fixture(scope="module")
def shared(start_one):
    with start_one(max_tokens=50, max_prompt_tokens=40, max_choices=3, max_body_bytes=4000) as it:
        yield it


def test_hanging_up_frees_the_slot_at_once(one_slot, wait_until):
    for _ in range(3):
        stream = one_slot.stream(COMPLETIONS, NEVER_ENDS)
        next(stream)
        assert one_slot.engine.n_running == 1
        stream.close()
        wait_until(lambda: one_slot.engine.n_running == 0)
    assert one_slot.engine.n_cancelled == 3
    assert one_slot.engine.n_tokens < 3 * 4000
    assert one_slot.ask(COMPLETIONS, {"max_tokens": 3})[0] == 200


@pytest.mark.parametrize("kind", ["gpt", "rwkv7"])
def test_a_long_prompt_is_read_while_others_grow(start, monkeypatch, kind):
    """In parts, and gives the text that it gives when it is read at once."""
    monkeypatch.setattr(engine, "PROMPT_TOKENS", 7)
    server = start(kind)
    parts = []
    for name in ("add", "extend"):
        monkeypatch.setattr(server.engine._batch, name, noting(server, name, parts))
    stream = server.stream(COMPLETIONS, NEVER_ENDS)
    next(stream)
    prompt = "The bear was big. " * 40
    body = {"prompt": prompt, "seed": 2, "max_tokens": 20}
    status, got = server.ask(COMPLETIONS, body)
    expected = server.generator.complete(prompt, seed=2, temperature=1.0, max_tokens=20)
    assert (status, got["choices"][0]["text"]) == (200, expected.text)
    n_prompt = len(server.generator.prompt_ids(prompt))
    assert [n for n, _ in parts[1:]] == [7] * (n_prompt // 7) + [n_prompt % 7] * (n_prompt % 7 > 0)
    made = [n_made for _, n_made in parts[1:]]
    assert all(after > before for before, after in pairwise(made))
    stream.close()


def noting(server, name, parts):
    """The batch's method, noting how many ids it is given and how many tokens were made before."""
    method = getattr(server.engine._batch, name)

    def read(*arguments):
        parts.append((len(arguments[-1]), server.engine.n_tokens))
        return method(*arguments)

    return read


def test_hanging_up_while_the_prompt_is_read(start, monkeypatch, wait_until):
    monkeypatch.setattr(engine, "PROMPT_TOKENS", 1)
    server = start(slots=1)
    connection = server.connect()
    body = NEVER_ENDS | {"prompt": [5] * 8000}
    connection.request("POST", COMPLETIONS, json.dumps(body).encode())
    wait_until(lambda: server.engine.n_prompt_tokens > 3)
    connection.close()
    wait_until(lambda: server.engine.n_running == 0)
    assert server.engine.n_prompt_tokens < 8000
    assert server.ask(COMPLETIONS, {"max_tokens": 3})[0] == 200


def test_hanging_up_without_a_stream_and_in_the_queue(one_slot, wait_until):
    def begin():
        connection = one_slot.connect()
        connection.request("POST", COMPLETIONS, json.dumps(NEVER_ENDS).encode())
        return connection

    running = begin()
    wait_until(lambda: one_slot.engine.n_running == 1)
    waiting = begin()
    wait_until(lambda: one_slot.engine.n_waiting == 1)
    waiting.close()
    wait_until(lambda: one_slot.engine.n_waiting == 0)
    assert one_slot.engine.n_running == 1
    running.close()
    wait_until(lambda: one_slot.engine.n_running == 0)
    assert one_slot.engine.n_cancelled == 2


def test_a_full_queue_is_429(one_slot, wait_until):
    first = one_slot.stream(COMPLETIONS, NEVER_ENDS)
    next(first)
    second = threading.Thread(target=one_slot.ask, args=(COMPLETIONS, {"max_tokens": 2}))
    second.start()
    wait_until(lambda: one_slot.engine.n_waiting == 1)
    status, got = one_slot.ask(COMPLETIONS, {"max_tokens": 2})
    assert (status, got["error"]["type"]) == (429, "rate_limit_error")
    first.close()
    second.join()
    assert one_slot.ask(COMPLETIONS, {"max_tokens": 2})[0] == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"max_tokens": 51}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"prompt": "x" * 200}, "prompt"),
        ({"prompt": ["x" * 40] * 2}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [300]}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"n": 4}, "n"),
        ({"n": 0}, "n"),
        ({"n": 2, "prompt": ["a", "b"]}, "n"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 1e300}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"seed": 2**70}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"logit_bias": {"300": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"stream": "yes"}, "stream"),
        ({"logprobs": 21}, "logprobs"),
        ({"echo": True}, "echo"),
        ({"best_of": 3}, "best_of"),
        ({"model": 5}, "model"),
        ({"model": ["small"]}, "model"),
        ({"model": "\ud800"}, "model"),
    ],
)
def test_a_request_that_asks_for_what_is_not_allowed(shared, body, param):
    status, got = shared.ask(COMPLETIONS, body)
    assert (status, got["error"]["param"]) == (400, param)
    assert got["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "messages",
    [None, [], "hi", [1], [{"role": "cook", "content": "a"}], [{"role": "user", "content": 5}],
     [{"role": "user", "content": [{"type": "image_url"}]}], [{"content": "x"}],
     [{"role": "user", "content": "x" * 200}]],
)  # fmt: skip
def test_chats_that_make_no_sense(shared, messages):
    assert shared.ask("/v1/chat/completions", {"messages": messages})[0] == 400


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"3", b'"a"', b"\xff\xfe", b'{"prompt": "\xc3"}', b'{"temperature": NaN}',
     b'{"top_p": 1e999}', b"[" * 5000, b'{"a":' * 5000, b'{"seed": ' + b"9" * 900 + b"}",
     b'{"prompt": "' + b"x" * 5000 + b'"}', b"x" * 50_000],
)  # fmt: skip
def test_what_is_no_request(shared, body):
    status, got = shared.ask(COMPLETIONS, body)
    assert status == 400
    assert len(got["error"]["message"]) < 120


def test_addresses_and_methods(shared):
    assert shared.ask("/etc/passwd")[0] == 404
    assert shared.ask("/../../etc/passwd")[0] == 404
    assert shared.ask("/v1/models/..%2f..%2fetc%2fpasswd")[0] == 404
    assert shared.ask(COMPLETIONS)[0] == 405
    assert shared.ask("/v1/models", b"{}")[0] == 405


def test_a_slow_body_is_408(start):
    server = start(body_seconds=0.2)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as slow:
        slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 90\r\n\r\n{")
        answer = http.client.HTTPResponse(slow)
        answer.begin()
        assert answer.status == 408
        assert b"in time" in answer.read()


@pytest.mark.parametrize("sent", [b"", b"GET /health HTT", b"GET /health HTTP/1.1\r\nHost: a\r\n"])
def test_a_head_that_never_ends_is_cut_off(start, monkeypatch, sent):
    monkeypatch.setattr(run, "HEADER_SECONDS", 0.2)
    server = start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as slow:
        slow.sendall(sent)
        assert slow.recv(1000) == b""


def test_a_connection_lives_on_for_the_next_request(start, monkeypatch):
    """Also when the answer took longer than a head may."""
    monkeypatch.setattr(run, "HEADER_SECONDS", 0.3)
    server = start()
    connection = server.connect()
    for _ in range(2):
        connection.request("POST", COMPLETIONS, json.dumps(NEVER_ENDS | {"max_tokens": 1500}))
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
    connection.close()


def test_a_client_that_takes_nothing_is_cut_off(start, monkeypatch, wait_until):
    monkeypatch.setattr(run, "STALLED_SECONDS", 0.3)
    server = start()
    server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # those it accepts too
    body = json.dumps(NEVER_ENDS | {"stream": True, "logprobs": 20}).encode()
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect(("127.0.0.1", server.port))
        head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
        lazy.sendall(head.encode() + body)
        wait_until(lambda: server.engine.n_tokens > 0)
        wait_until(lambda: not server.server.server_state.connections)
        wait_until(lambda: server.engine.n_running == 0)


def test_a_request_that_takes_too_long(start):
    server = start(request_seconds=0.6)
    status, got = server.ask(COMPLETIONS, NEVER_ENDS)
    assert (status, got["error"]["code"]) == (504, "timeout")
    *texts, last = server.stream(COMPLETIONS, NEVER_ENDS)
    assert texts
    assert last["error"]["code"] == "timeout"
    assert server.engine.n_running == 0


def test_more_texts_than_there_is_ever_room_for(start):
    """429 would say to try again."""
    server = start(slots=2, max_waiting=1)
    status, got = server.ask(COMPLETIONS, {"n": 4, "max_tokens": 1})
    assert (status, got["error"]["param"]) == (400, "n")
    assert server.ask(COMPLETIONS, {"n": 3, "max_tokens": 1})[0] == 200


def test_an_api_key(start):
    server = start(api_key="sesame")
    for headers in ({}, {"Authorization": "Bearer sesam"}, {"Authorization": "sesame"},
                    {"Authorization": "Bearer \xff"}):  # fmt: skip
        for path in ("/v1/models", "/metrics", "/nowhere"):
            status, got = server.ask(path, headers=headers)
            assert (status, got["error"]["code"]) == (401, "invalid_api_key")
        assert server.ask(COMPLETIONS, {}, headers=headers)[0] == 401
    assert server.ask("/v1/models", headers={"Authorization": "Bearer sesame"})[0] == 200
    assert server.ask("/v1/models", headers={"Authorization": "bearer sesame"})[0] == 200
    assert header(server, "/v1/models", "www-authenticate") == (401, "Bearer")
    assert server.ask("/health")[0] == server.ask("/")[0] == 200
    assert server.engine.n_tokens == 0


def test_pages_of_other_sites(start):
    closed = start(hosts=("127.0.0.1", "localhost"))
    own = {"Origin": closed.url}
    assert closed.ask(COMPLETIONS, {"max_tokens": 1}, headers=own)[0] == 200
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://["}):
        assert closed.ask(COMPLETIONS, {"max_tokens": 1}, headers=headers)[0] == 403
    assert closed.ask("/v1/models", headers={"Host": "evil.example"})[0] == 403
    assert closed.ask("/v1/models", headers={"Host": "LocalHost:1"})[0] == 200
    assert _allowed_origin(closed, "https://friend.example") == (403, None)
    opened = start(cors_origins=("https://friend.example",))
    assert _allowed_origin(opened, "https://friend.example") == (200, "https://friend.example")
    assert _allowed_origin(opened, "https://evil.example") == (403, None)


def test_a_page_that_was_allowed_may_send_any_header(start):
    """OpenAI's client for browsers tells of itself in headers of its own."""
    server = start(cors_origins=("https://friend.example",), api_key="sesame")
    asks = {
        "Origin": "https://friend.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
    }
    name = "access-control-allow-headers"
    status, allowed = header(server, COMPLETIONS, name, method="OPTIONS", headers=asks)
    assert status == 200
    assert {"authorization", "x-stainless-lang"} <= set(allowed.replace(" ", "").split(","))
    asks["Origin"] = "https://evil.example"
    assert header(server, COMPLETIONS, name, method="OPTIONS", headers=asks)[0] == 400


def _allowed_origin(server, origin):
    name = "access-control-allow-origin"
    return header(server, "/v1/models", name, headers={"Origin": origin})


def header(server, path, name, *, method="GET", headers=None):
    """Status and one header of the answer."""
    connection = server.connect()
    connection.request(method, path, headers=headers or {})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.getheader(name)


def test_a_failure_inside_says_nothing_of_the_inside(start, monkeypatch, caplog):
    server = start()

    def fail(*_):
        raise RuntimeError("/home/someone/secret")

    with monkeypatch.context() as broken, caplog.at_level(logging.CRITICAL):
        broken.setattr(type(server.engine._batch), "step", fail)
        status, got = server.ask(COMPLETIONS, NEVER_ENDS)
        assert status == 500
        [*_, last] = server.stream(COMPLETIONS, NEVER_ENDS)
        for told in (got, last):
            assert set(told) == {"error"}
            assert "secret" not in json.dumps(told)
            assert "Traceback" not in json.dumps(told)
    assert server.ask(COMPLETIONS, {"max_tokens": 5})[0] == 200


def test_the_end_lets_running_requests_finish(start):
    server = start(grace_seconds=20.0)
    stream = server.stream(COMPLETIONS, NEVER_ENDS | {"max_tokens": 300})
    next(stream)
    server.server.should_exit = True
    *_, last = stream
    assert last["choices"][0]["finish_reason"] == "length"
    server.stop()


def test_the_end_tells_those_who_are_left(start):
    server = start(grace_seconds=0.1, slots=1)
    stream = server.stream(COMPLETIONS, NEVER_ENDS)
    next(stream)
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(server.ask(COMPLETIONS, {})))
    waiting.start()
    while not server.engine.n_waiting:
        time.sleep(0.001)
    began = time.monotonic()
    server.server.should_exit = True
    *_, last = stream
    assert last["error"]["code"] == "shutting_down"
    waiting.join()
    assert [status for status, _ in answers] == [503]
    server.stop()
    assert time.monotonic() - began < 20
    with pytest.raises(RequestError, match="shutting down"):
        server.engine.submit([Job(_request(server), deadline=time.monotonic() + 9)])


def _request(server):
    return server.generator._begin("The")[0]


def test_settings_that_allow_nothing():
    for name in ("slots", "max_tokens", "request_seconds"):
        with pytest.raises(PhiInferError, match=name):
            Settings(**{name: 0})
    with pytest.raises(PhiInferError, match="3 workers for 2 slots"):
        Settings(workers=3, slots=2)
    with pytest.raises(PhiInferError, match="ASCII"):
        Settings(api_key="schlüssel")
    with pytest.raises(PhiInferError, match="blank"):
        Settings(api_key="sesame\n")


def test_one_texts_bug_ends_no_other(start, monkeypatch):
    server = start()
    draw = Request.draw

    def faulty(self, logits):
        if self.sampling.seed == 13:
            raise KeyError("a bug")
        return draw(self, logits)

    monkeypatch.setattr(Request, "draw", faulty)
    good = server.stream(COMPLETIONS, NEVER_ENDS | {"max_tokens": 200, "seed": 1})
    first = next(good)
    status, told = server.ask(COMPLETIONS, {"prompt": "b", "max_tokens": 4, "seed": 13})
    assert status == 500
    assert "bug" not in json.dumps(told)
    assert not any("error" in event for event in [first, *good])
    assert server.engine.n_running == 0


def test_an_engine_that_cannot_go_on_leaves_nobody_waiting(start, monkeypatch):
    server = start()
    stream = server.stream(COMPLETIONS, NEVER_ENDS)
    next(stream)

    def broken(*_args):
        raise MemoryError

    monkeypatch.setattr(server.engine, "_new_batch", broken)
    monkeypatch.setattr(type(server.engine._batch), "step", broken)
    *_, last = stream
    assert "error" in last
    status, _ = server.ask(COMPLETIONS, {"prompt": "a", "max_tokens": 2})
    assert status == 503


def test_a_slow_client_that_reads_all_the_time_gets_all(start, monkeypatch):
    monkeypatch.setattr(run, "STALLED_SECONDS", 0.3)
    server = start()
    server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    body = json.dumps(NEVER_ENDS | {"max_tokens": 150, "logprobs": 20}).encode()
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", server.port))
        head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        slow.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        got = slow.recv(4000)
        started = time.monotonic()
        while part := slow.recv(4000):
            got += part
            time.sleep(0.04)
    assert time.monotonic() - started > 0.6, "slower than the limit"
    length = int(got.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    assert len(got.split(b"\r\n\r\n", 1)[1]) == length


def test_a_grace_without_end_is_refused():
    with pytest.raises(PhiInferError, match="grace_seconds is inf"):
        Settings(grace_seconds=math.inf)
