"""phi-infer serve as a program: its line, its signals, its mistakes."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from phi_infer.cli import app
from phi_infer.errors import PhiInferError

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
    assert done.stderr == "phi-infer: error: the address is in use; choose another port\n"


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
