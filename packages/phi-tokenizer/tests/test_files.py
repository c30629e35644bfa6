"""Reading a corpus, and writing without ever leaving half a file."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from phi_tokenizer import EncodingError, Tokenizer, TrainingError
from phi_tokenizer.console import describe_os_error
from phi_tokenizer.corpus import corpus_files, read_parts
from phi_tokenizer.files import atomic_write, atomic_write_bytes

STORIES = ["One day, a cat slept.\n", "\nTwo dogs ran. It's fun!", "日本語 naïve 🎉 end"]


def test_atomic_write_replaces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o640)
    with atomic_write(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_keeps_the_old_file_on_failure(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_follows_links(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    atomic_write_bytes(link, b"new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.parametrize("name", ["missing/file", "."])
def test_atomic_write_names_the_target(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match=r"No such file|Is a directory") as caught:
        atomic_write_bytes(tmp_path / name, b"x")
    assert caught.value.filename == str(tmp_path / name)


FULL_DISK = """
import resource, sys
from phi_tokenizer import Tokenizer
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
tokenizer = Tokenizer.train("a text " * 9, vocab_size=260)
try:
    tokenizer.save(sys.argv[1])
except OSError as error:
    print(error.errno, error.filename)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit to set")
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True
    )
    assert run.stdout == f"{errno.EFBIG} {path}\n"
    assert not list(tmp_path.iterdir())


def test_errors_of_the_system_in_one_line() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out.json")
    assert describe_os_error(full).startswith("out.json: no space left")
    assert describe_os_error(OSError("strange")) == "strange"


def test_files_and_folders_give_the_same(tmp_path: Path) -> None:
    text, lines = tmp_path / "a.txt", tmp_path / "sub" / "b.jsonl"
    lines.parent.mkdir()
    text.write_text("<|endoftext|>".join(STORIES), "utf-8")
    lines.write_text("\n".join(json.dumps({"text": story}) for story in STORIES) + "\n\n", "utf-8")
    (tmp_path / "ignored.bin").write_bytes(b"\xff")
    assert corpus_files(tmp_path) == [text, lines]
    expected = Tokenizer.train(STORIES, vocab_size=270)
    for paths in ([text], text, str(lines), [tmp_path]):
        assert Tokenizer.train_from_files(paths, vocab_size=270).vocabulary == expected.vocabulary


def test_large_files_come_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut in blocks that split characters and separators, the pieces stay the same."""
    path = tmp_path / "a.txt"
    text = "<|endoftext|>".join(STORIES * 40) + " one  two\n\nthree" * 300
    path.write_text(text, "utf-8")
    expected = Tokenizer.train(text.split("<|endoftext|>"), vocab_size=300)
    for block in (7, 100, 1000):
        monkeypatch.setattr("phi_tokenizer.corpus._BLOCK", block)
        trained = Tokenizer.train_from_files(path, vocab_size=300)
        assert trained.vocabulary == expected.vocabulary
        parts = list(read_parts(path, ["<|endoftext|>"], may_cut=True))
        assert "".join(parts) == text.replace("<|endoftext|>", "")


def test_progress_counts_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("some text " * 50)
    seen: list[tuple[str, int, int]] = []
    Tokenizer.train_from_files(path, vocab_size=260, progress=lambda *step: seen.append(step))
    assert seen[0] == ("reading", 500, 500)
    assert seen[-1] == ("merging", 4, 4)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"caf\xe9 ok", r"a.txt is not UTF-8: byte 0xe9 at offset 3; convert"),
        ("a.txt", b"ab\xc3", r"byte 0xc3 at offset 2"),
        ("a.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', r"a.jsonl, line 2"),
        ("a.jsonl", b"nothing\n", r"line 1"),
    ],
)
def test_broken_corpora(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EncodingError, match=message):
        Tokenizer.train_from_files(tmp_path / name, vocab_size=300)


def test_the_offset_of_a_bad_byte_in_a_later_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phi_tokenizer.corpus._BLOCK", 10)
    (tmp_path / "a.txt").write_bytes(b"123456789\xc3\xa9 and \xff")
    with pytest.raises(EncodingError, match="byte 0xff at offset 16"):
        Tokenizer.train_from_files(tmp_path / "a.txt", vocab_size=300)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"holds no \.txt"):
        Tokenizer.train_from_files(tmp_path, vocab_size=300)
    with pytest.raises(TrainingError, match="no file"):
        Tokenizer.train_from_files([], vocab_size=300)
    with pytest.raises(FileNotFoundError):
        Tokenizer.train_from_files(tmp_path / "nope", vocab_size=300)


MEMORY = """
import resource, sys
from phi_tokenizer import Tokenizer
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
Tokenizer.train_from_files(sys.argv[1], vocab_size=400)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    story = "".join(f"The cat number {n} sat on the mat.\n" for n in range(1000))
    with path.open("w") as file:
        for _ in range(2000):
            file.write(story)
    size = path.stat().st_size >> 20
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True
    )
    assert size > 60
    assert int(run.stdout) < size + 40
