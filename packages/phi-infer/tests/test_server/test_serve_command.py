"""phi-infer serve as a program: its line, its signals, its mistakes."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from phi_infer import load
from phi_infer.cli import app
from phi_infer.errors import PhiInferError
from phi_infer.server.run import SPARE_FILES, bind, connections_allowed

PROGRAM = [sys.executable, "-c", "from phi_infer.cli import main; main()", "serve"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_ends_at_a_signal(checkpoint, number):
    process = subprocess.Popen(
        [*PROGRAM, str(checkpoint), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PHI_API_KEY": "sesame"},
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        port = int(re.match(r"random at http://127\.0\.0\.1:(\d+) ", line)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/v1/models")
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]["type"]) == (
            401, "authentication_error",
        )  # fmt: skip
        connection.close()
        headers = {"Authorization": "Bearer sesame"}
        connection.request("POST", "/v1/completions", b'{"max_tokens": 3}', headers)
        answer = connection.getresponse()
        assert answer.status == 200
        assert json.loads(answer.read())["usage"]["completion_tokens"] <= 3
        connection.close()
        with socket.create_connection(("127.0.0.1", port), timeout=30) as other:
            other.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
            assert other.recv(1000).startswith(b"HTTP/1.1 400 ")
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.communicate()


def test_a_port_in_use_is_one_line(checkpoint):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*PROGRAM, str(checkpoint), "--port", port],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        f"phi-infer: error: 127.0.0.1, port {port}: the address is in use; choose another port\n"
    )


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1", "x" * 300])
def test_a_host_that_is_not_here_is_named(host):
    with pytest.raises(PhiInferError, match=f"{host}[:,]"):
        bind(host, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_right_after_its_line_ends_it(checkpoint, number):
    for _ in range(3):
        process = start(checkpoint)
        process.stdout.readline()
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")


def test_a_second_signal_ends_the_patience(checkpoint):
    """And still tells its clients, without a traceback."""
    process = start(checkpoint, "--grace", "600")
    try:
        port = int(process.stdout.readline().rsplit(":", 1)[1].split()[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        body = {"max_tokens": 4096, "stream": True, "logit_bias": {"299": -100}}
        connection.request("POST", "/v1/completions", json.dumps(body | {"n": 8}).encode())
        answer = connection.getresponse()
        answer.readline()
        process.send_signal(signal.SIGINT)
        while not _refused(port):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert b'"shutting_down"' in answer.read()
        connection.close()
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("key", "n_lines"), [("", 1), ("sesame", 0)])
def test_open_to_the_network_without_a_key_is_said(checkpoint, monkeypatch, key, n_lines):
    monkeypatch.setenv("PHI_API_KEY", key)
    process = start(checkpoint, "--host", "0.0.0.0")
    assert process.stdout.readline().startswith("random at http://0.0.0.0:")
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.count("API key"), errors.count("\n")) == (
        0, n_lines, n_lines,
    )  # fmt: skip


def test_an_allowed_site_may_end_in_a_slash(checkpoint):
    process = start(checkpoint, "--cors-origin", "https://friend.example/")
    port = int(process.stdout.readline().rsplit(":", 1)[1].split()[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/health", headers={"Origin": "https://friend.example"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.getheader("access-control-allow-origin") == "https://friend.example"
    process.terminate()
    process.communicate(timeout=30)


def _refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers may be threads")
def test_workers_give_the_same_and_leave_with_the_server(checkpoint):
    process = start(checkpoint, "--workers", "3", "--slots", "7")
    try:
        port = int(process.stdout.readline().rsplit(":", 1)[1].split()[0])
        children = _children(process.pid)
        assert len(children) == 2
        body = {"prompt": "The bear", "n": 7, "seed": 1, "max_tokens": 30}
        generator = load(checkpoint)
        expected = [
            generator.generate("The bear", seed=1 + i, temperature=1.0, max_tokens=30)
            for i in range(7)
        ]
        assert _texts(port, body) == expected
        os.kill(children[0], signal.SIGKILL)
        with pytest.raises(KeyError):  # those that it was making end with an error
            _texts(port, body)
        assert _texts(port, body) == expected
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0
        assert not any(os.path.exists(f"/proc/{child}") for child in children)
    finally:
        process.kill()
        process.communicate()


def _children(pid):
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True
    )
    return [int(child) for child in found.stdout.split()]


def _texts(port, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/v1/completions", json.dumps(body).encode())
    content = json.loads(connection.getresponse().read())
    connection.close()
    return [choice["text"] for choice in content["choices"]]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_more_connections_than_files(checkpoint):
    """All others are closed, nothing is logged, and the server answers again when they are gone."""
    limit = SPARE_FILES + 20
    connections_allowed(2 * limit)  # of this process
    process = start(checkpoint, before=f"ulimit -n {limit};")
    idle = []
    try:
        port = int(process.stdout.readline().rsplit(":", 1)[1].split()[0])
        for _ in range(2 * limit):
            idle.append(socket.create_connection(("127.0.0.1", port), timeout=30))
        closed = sum(connection.recv(1) == b"" for connection in idle[limit:])
        assert closed == limit
        for connection in idle:
            connection.close()
        while (status := _health(port)) == 503:
            time.sleep(0.01)
        assert status == 200
        process.terminate()
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.communicate()


def _health(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/health")
    status = connection.getresponse().status
    connection.close()
    return status


def start(checkpoint, *options, before=""):
    command = shlex.join([*PROGRAM, str(checkpoint), "--port", "0", *options])
    return subprocess.Popen(
        ["sh", "-c", f"{before} exec {command}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_without_the_extra_it_names_the_command(monkeypatch, checkpoint):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name)
    )
    result = CliRunner().invoke(app, ["serve", str(checkpoint)])
    assert isinstance(result.exception, PhiInferError)
    assert "pip install 'phi-infer[server]'" in str(result.exception)


def test_nothing_is_imported_before_it_is_used():
    code = "import sys, phi_infer.cli, phi_infer.server; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert not {"starlette", "uvicorn", "anyio", "asyncio"} & set(done.stdout.split())
