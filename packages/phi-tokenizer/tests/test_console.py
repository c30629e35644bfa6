"""The guard around the programs of all packages."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, warnings
import typer
from phi_tokenizer import console

app = typer.Typer()

class Mine(Exception):
    pass

@app.command()
def main(what: str) -> None:
    print("before")
    match what:
        case "mine": raise Mine("two\\nlines")
        case "bug": raise KeyError("bug")
        case "interrupt": raise KeyboardInterrupt
        case "exit": raise typer.Exit(7)
        case "abort": raise typer.Abort
        case "permission": raise PermissionError(13, "x", "secret.txt")
        case "full": raise OSError(28, "x")
        case "pipe": raise BrokenPipeError(32, "x")
        case "memory": raise MemoryError("16 GiB")
        case "warn": warnings.warn("careful", stacklevel=1)
        case "accent": print("é")

console.run(app, "prog", errors=(Mine,))
"""


@pytest.mark.parametrize(
    ("what", "code", "line"),
    [
        ("mine", 1, "prog: error: two lines"),
        ("interrupt", 130, "prog: interrupted"),
        ("abort", 130, "prog: interrupted"),
        ("exit", 7, None),
        ("permission", 1, "prog: error: secret.txt: permission denied; check who"),
        ("full", 1, "prog: error: no space left on the device; free some space"),
        ("pipe", 141, None),
        ("memory", 1, "prog: error: out of memory (16 GiB)"),
        ("warn", 0, "prog: warning: careful"),
        ("accent", 0, None),
        ("fine", 0, None),
    ],
)
def test_endings(what: str, code: int, line: str | None) -> None:
    done = run(what)
    assert done.returncode == code
    assert done.stdout.startswith("before")
    lines = done.stderr.splitlines()
    assert len(lines) == (line is not None)
    if line is not None:
        assert lines[0].startswith(line)


def run(what: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, what],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONIOENCODING": "ascii", **environment},
    )


def test_a_bug_keeps_its_traceback() -> None:
    done = run("bug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "KeyError: 'bug'" in done.stderr


def test_tracebacks_on_request() -> None:
    assert "Traceback" in run("mine", PHI_TRACEBACK="1").stderr
