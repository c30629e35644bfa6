"""The program, run as people run it: what it prints, and its one line when something is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from phi_tokenizer import Tokenizer, __version__

STORY = "Once upon a time there was a cat. It's naïve 🎉.\n" * 3


def run(*arguments: object, stdin: bytes = b"", **options: object) -> "subprocess.CompletedProcess":
    command = [sys.executable, "-m", "phi_tokenizer", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "story.txt").write_text(STORY + "<|endoftext|>" + STORY, "utf-8")
    done = run(
        "train", folder / "story.txt", "--vocab-size", 290, "--output", folder / "tokenizer.json",
        "--special", "<|endoftext|>",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"290 tokens, 33 merges" in done.stdout
    assert b"bytes a token" in done.stdout
    return folder


def test_round_trip(folder: Path) -> None:
    path = folder / "tokenizer.json"
    text = "a cat 🎉<|endoftext|>\n"
    encoded = run("encode", path, stdin=text.encode())
    ids = [int(word) for word in encoded.stdout.split()]
    assert ids == Tokenizer.load(path).encode(text, allowed_special="all")
    assert run("encode", path, "--text", text).stdout == encoded.stdout
    assert run("decode", path, stdin=encoded.stdout).stdout == text.encode()
    assert run("decode", path, "--ids", " ".join(map(str, ids))).stdout == text.encode()
    (folder / "t.txt").write_text(text, "utf-8")
    assert run("encode", path, folder / "t.txt").stdout == encoded.stdout
    out = folder / "out.txt"
    assert run("decode", path, "--output", out, stdin=encoded.stdout).returncode == 0
    assert out.read_text("utf-8") == text
    ordinary = run("encode", path, "--ordinary", "--text", text).stdout.split()
    assert b"289" not in ordinary


def test_inspect(folder: Path) -> None:
    done = run("inspect", folder / "tokenizer.json", "--text", "a cat 🎉", "--json")
    facts = json.loads(done.stdout)
    assert facts["n_vocab"] == 290
    assert facts["special_tokens"] == {"<|endoftext|>": 289}
    assert sum(facts["tokens_by_bytes"].values()) == 289
    assert facts["text"]["bytes"] == 10
    assert facts["text"]["tokens"] == len(facts["text"]["ids"])
    shown = run("inspect", folder / "tokenizer.json", "--text", "a cat").stdout.decode()
    assert "290" in shown
    assert "[a][ cat]" in shown


@pytest.mark.parametrize("to", ["hf", "gpt2", "tiktoken"])
def test_convert(folder: Path, to: str) -> None:
    target = folder / f"as-{to}"
    done = run("convert", folder / "tokenizer.json", target, "--to", to)
    assert done.returncode == 0, done.stderr
    options = ["--special", "<|endoftext|>"] if to == "tiktoken" else []
    here = run("encode", folder / "tokenizer.json", "--text", STORY)
    assert run("encode", target, "--text", STORY, *options).stdout == here.stdout


def test_version_and_help() -> None:
    assert run("--version").stdout.decode() == f"phi-tokenizer {__version__}\n"
    help_text = run("--help").stdout.decode()
    for command in ("train", "encode", "decode", "inspect", "convert"):
        assert command in help_text
        assert "Example:" in run(command, "--help").stdout.decode()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "missing.json", "--text", "a"], "missing.json: no such file"),
        (["encode", "story.txt", "--text", "a"], "story.txt: line 1 is not a token"),
        (["encode", "tokenizer.json", "nope.txt"], "nope.txt: no such file"),
        (["encode", "tokenizer.json", "."], "is a folder"),
        (["encode", "tokenizer.json", "latin.txt"], "latin.txt is not UTF-8"),
        (["decode", "tokenizer.json", "--ids", "290"], "token id 290 is not in the vocabulary"),
        (["decode", "tokenizer.json", "--ids", "x"], "'x' is not a token id"),
        (["decode", "tokenizer.json", "--ids", "9" * 30], "is not a token id"),
        (["train", "empty.txt"], "no text to train on"),
        (["train", "story.txt", "--vocab-size", "99"], "vocab_size 99 is too small"),
        (["train", "latin.txt"], "not UTF-8"),
        (["train", "story.txt", "--output", "no/where.json", "--vocab-size", "256"], "no/where"),
        (["train", "story.txt", "--output", "."], "is a folder"),
        (["train", "story.txt", "--vocab-size", "many"], "'many' is not a valid int"),
        (["convert", "tokenizer.json", "x", "--to", "png"], "'png' is not one of"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)
def test_a_mistake_is_one_line(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "empty.txt").write_bytes(b"")
    before = sorted(folder.iterdir())
    done = run(*arguments, cwd=folder)
    lines = done.stderr.decode().splitlines()
    assert done.returncode in (1, 2)
    assert len(lines) == 1, done.stderr.decode()
    assert lines[0].startswith("phi-tokenizer: error: ")
    assert message in lines[0]
    assert done.stdout == b""
    assert sorted(folder.iterdir()) == before


def test_too_little_text_is_a_warning(folder: Path) -> None:
    done = run("train", folder / "story.txt", "--vocab-size", 5000, "-o", folder / "small.json")
    assert done.returncode == 0
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("phi-tokenizer: warning: the texts hold only")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", [["encode", "--text", STORY], ["inspect"], ["--help"]])
def test_a_full_disk(folder: Path, command: list[str]) -> None:
    arguments = [command[0], str(folder / "tokenizer.json"), *command[1:]]
    if command == ["--help"]:
        arguments = command
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "phi_tokenizer", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert "no space left" in line


def test_a_reader_that_goes_away(folder: Path) -> None:
    text = folder / "long.txt"
    text.write_text(STORY * 20_000, "utf-8")
    command = [sys.executable, "-m", "phi_tokenizer", "encode", folder / "tokenizer.json", text]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 141
    assert errors == b""
