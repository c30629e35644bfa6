"""Sources that come with two sides, and the commands that make them ready."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sysconfig
from pathlib import Path

import pytest

from phi_train import ConfigError, DataError
from phi_train.byte_progress import ByteProgress
from phi_train.corpus import documents_to_measure, open_corpus
from phi_train.datasets import data_folder, dataset_file, dataset_named
from phi_train.documents import END_OF_TEXT
from phi_train.prepare import open_prepared, prepare

PROGRAM = Path(sysconfig.get_path("scripts")) / "phi-train"


@pytest.fixture
def tinystories(tmp_path, monkeypatch, stories):
    """A small dataset of that name, as if it had been downloaded."""
    folder = tmp_path / "data" / "tinystories"
    folder.mkdir(parents=True)
    train, valid = stories(50, seed=5), stories(9, seed=6)
    (folder / "TinyStoriesV2-GPT4-train.txt").write_text(END_OF_TEXT.join(train))
    (folder / "TinyStoriesV2-GPT4-valid.txt").write_text(END_OF_TEXT.join(valid))
    monkeypatch.setenv("PHI_DATA", str(tmp_path / "data"))
    return train, valid


def test_a_dataset_has_a_file_for_each_side(tmp_path, tinystories):
    train, valid = tinystories
    corpus = open_corpus("tinystories")
    assert (corpus.train, corpus.valid, corpus.valid_nats) == (train, valid, None)
    assert documents_to_measure("tinystories") == (valid, None)
    other = tmp_path / "other.txt"
    other.write_text("Another text.")
    assert open_corpus("tinystories", str(other)).valid == ["Another text."]
    assert open_corpus(str(other), "tinystories").valid == valid


def test_a_dataset_is_prepared_from_its_two_files(tmp_path, tinystories):
    train, valid = tinystories
    prepare("tinystories", tmp_path / "tokens", vocab_size=280)
    corpus = open_corpus(str(tmp_path / "tokens"))
    assert (corpus.train, corpus.valid) == (train, valid)
    names = [Path(i["name"]).name for i in open_prepared(tmp_path / "tokens").manifest["inputs"]]
    assert names == ["TinyStoriesV2-GPT4-train.txt", "TinyStoriesV2-GPT4-valid.txt"]


def test_a_prepared_folder_gives_the_documents_back(tmp_path, corpus):
    prepare(str(corpus), tmp_path / "tokens", vocab_size=280)
    text, back = open_corpus(str(corpus)), open_corpus(str(tmp_path / "tokens"))
    assert back == text
    assert documents_to_measure(str(tmp_path / "tokens")) == (text.valid, None)


def test_prepared_builtin_stories_keep_their_nats(tmp_path):
    prepare("builtin", tmp_path / "tokens", stories=50, vocab_size=300)
    assert open_corpus(str(tmp_path / "tokens")) == open_corpus("builtin", n_stories=50)


def test_an_unfinished_folder_is_no_source(tmp_path):
    (tmp_path / "tokens" / ".partial").mkdir(parents=True)
    with pytest.raises(DataError, match="tokens is not finished: run the same phi-train data prep"):
        open_corpus(str(tmp_path / "tokens"))


def test_where_datasets_are(tmp_path, monkeypatch):
    monkeypatch.setenv("PHI_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "phi"
    with pytest.raises(DataError, match=r"tinystories is not in .* yet: run phi-train data fetch"):
        dataset_file("tinystories", held_out=True)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data_folder() == tmp_path / "home/.cache/phi"
    with pytest.raises(ConfigError, match="no dataset is called 'other'; there is tinystories"):
        dataset_named("other")


def call(*arguments, **options):
    settings = {"capture_output": True, "encoding": "utf-8", "timeout": 60} | options
    return subprocess.run([str(PROGRAM), "data", *map(str, arguments)], check=False, **settings)


def test_the_command_prepares_once(tmp_path, corpus):
    arguments = ("prepare", corpus, "--out", tmp_path / "tokens", "--vocab-size", 280)
    first = call(*arguments)
    assert (first.returncode, first.stderr) == (0, "")
    result = first.stdout.splitlines(keepends=True)[-3:]  # a slow machine tells how far it is
    train, valid, after = (line.rstrip("\n") for line in result)
    facts = json.loads((tmp_path / "tokens/manifest.json").read_text())["sides"]
    assert f"{facts['train']['documents']:,} documents" in train
    assert f"{facts['valid']['tokens']:,} tokens held out" in valid
    assert after == f"train on it with: phi-train run --data {tmp_path / 'tokens'}"
    second = call(*arguments)
    already = f"{tmp_path / 'tokens'} holds just this already: nothing to do\n"
    assert second.stdout.endswith(already + "".join(result))


def test_the_command_tells_in_one_line_what_is_wrong(tmp_path, corpus):
    out = tmp_path / "tokens"
    for arguments, words in (
        ((tmp_path / "nowhere.txt", "--out", out), "nowhere.txt does not exist"),
        ((corpus, "--out", out, "--vocab-size", 70000), "at most 65,536"),
        ((corpus, "--out", out, "--workers", "many"), "--workers is 'many'; it must be auto"),
        (("builtin", "--out", out, "--stories", 0), "--stories is 0"),
        ((corpus, "--out", out, "--tokenizer", tmp_path / "none.json"), "none.json: no such file"),
        ((corpus, "--out", corpus / "inside"), "a part of the path is a file"),
    ):
        done = call("prepare", *arguments)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("phi-train: error: ")
        assert words in line
    assert not out.exists()


def test_on_a_terminal_there_is_a_bar(tmp_path, corpus):
    """And it is gone at the end: what stays is the summary."""
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    done = call(
        *("prepare", corpus, "--out", tmp_path / "tokens", "--workers", 1, "--vocab-size", 280),
        capture_output=False,
        stdout=slave,
        env=environment,
    )
    os.close(slave)
    shown = os.read(master, 1 << 16).decode()
    os.close(master)
    assert done.returncode == 0
    assert "encoding" in shown
    assert "train on it with" in shown


def test_lines_in_a_pipe_come_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr("phi_train.byte_progress.SECONDS_BETWEEN_LINES", 0.0)
    with ByteProgress() as progress:
        progress("reading", 0, 4_000_000)
        progress("reading", 2_000_000, 4_000_000)
        progress("getting", 5_000_000, 0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("reading: 0 of 4 MB, ")
    assert lines[1].startswith("reading: 2 of 4 MB, ")
    assert lines[2].startswith("getting: 5 MB, ")
    monkeypatch.setattr("phi_train.byte_progress.SECONDS_BETWEEN_LINES", 99.0)
    with ByteProgress() as progress:
        progress("reading", 0, 4)
        progress("reading", 4, 4)
    assert capsys.readouterr().out == ""
