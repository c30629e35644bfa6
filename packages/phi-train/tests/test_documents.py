"""From files and folders to documents, and what is said about a file that cannot be read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import phi_train.documents
from phi_train import DataError, train
from phi_train.documents import END_OF_TEXT, documents, files_of
from phi_train.prepare import prepare


def _file(tmp_path: Path, content: bytes | str, name: str = "text.txt") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_text_is_split_at_marks_and_stripped(tmp_path):
    path = _file(tmp_path, f"  One.\n{END_OF_TEXT}\n\nTwo. {END_OF_TEXT}{END_OF_TEXT} \n ")
    assert list(documents(path)) == ["One.", "Two."]
    assert list(documents(str(path))) == ["One.", "Two."]


def test_without_marks_it_is_one_document(tmp_path):
    path = _file(tmp_path, "One.\n\nStill one.\r\n")
    assert list(documents(path)) == ["One.\n\nStill one."]


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    texts=st.lists(st.text("aé😀 \n<|", min_size=1, max_size=30), max_size=6),
    chunk=st.integers(1, 40),
)
def test_marks_and_characters_across_the_borders_of_chunks(tmp_path, texts, chunk):
    content = END_OF_TEXT.join(texts)
    path = _file(tmp_path, content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phi_train.documents, "CHUNK", chunk)
        assert list(documents(path)) == [d.strip() for d in content.split(END_OF_TEXT) if d.strip()]


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = _file(tmp_path, b"\xef\xbb\xbfOne.")
    assert list(documents(path)) == ["One."]
    line = _file(tmp_path, b'\xef\xbb\xbf{"text": "One."}\n', "text.jsonl")
    assert list(documents(line)) == ["One."]


@pytest.mark.parametrize("chunk", [1, 5, 1 << 20])
@pytest.mark.parametrize("front", [b"", b"\xef\xbb\xbf"])
def test_a_byte_that_is_not_utf8_is_named(tmp_path, monkeypatch, chunk, front):
    monkeypatch.setattr(phi_train.documents, "CHUNK", chunk)
    content = front + f"Grüße.{END_OF_TEXT}Fa".encode() + b"\xe7ade"
    path = _file(tmp_path, content, "latin.txt")
    with pytest.raises(
        DataError, match=rf"latin\.txt is not UTF-8 text: byte {content.index(0xE7)} is 0xe7"
    ):
        list(documents(path))


def test_json_lines(tmp_path):
    lines = [{"text": "One."}, {"text": "  Zwei äö \n", "id": 3}, {"text": " "}]
    content = "\n".join(json.dumps(line) for line in lines) + "\n\n" + '{"text": "😀"}'
    assert list(documents(_file(tmp_path, content, "text.jsonl"))) == ["One.", "Zwei äö", "😀"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"not json", 'must be a JSON object with a key "text"'),
        (b'{"story": "x"}', 'must be a JSON object with a key "text"'),
        (b'["text"]', 'must be a JSON object with a key "text"'),
        (b"[" * 100_000, 'must be a JSON object with a key "text"'),
        (b'{"text": 3}', '"text" must be a string'),
        (b'{"text": "fa\xe7ade"}', "is not UTF-8 text: byte 12 is 0xe7"),
        (b'{"text": "\\ud800"}', "half a character"),
    ],
)
def test_a_bad_json_line_is_named(tmp_path, line, words):
    path = _file(tmp_path, b'{"text": "fine"}\n' + line + b"\n", "bad.jsonl")
    with pytest.raises(DataError, match=rf"bad\.jsonl, line 2.*{words}"):
        list(documents(path))


def test_a_folder_in_the_order_of_names(tmp_path):
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    _file(folder, "B", "b.txt")
    _file(folder, '{"text": "A"}', "a.JSONL")
    _file(folder, "I", "inner/z.txt")
    _file(folder, "not read", "readme.md")
    assert [p.name for p in files_of(folder)] == ["a.JSONL", "b.txt", "z.txt"]
    assert list(documents(folder)) == ["A", "B", "I"]


def test_any_other_ending_is_read_as_text(tmp_path):
    assert list(documents(_file(tmp_path, "x", "README.md"))) == ["x"]


def test_missing_and_empty(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.txt does not exist: --data takes"):
        list(documents(tmp_path / "nowhere.txt"))
    with pytest.raises(DataError, match=r"holds no \.txt, \.jsonl, \.parquet file"):
        list(documents(tmp_path))
    assert list(documents(_file(tmp_path, ""))) == []
    assert list(documents(_file(tmp_path, " \n\t"))) == []


def test_parquet_needs_an_extra_or_a_sound_file(tmp_path):
    path = _file(tmp_path, b"not parquet", "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet.*(pip install 'phi-train\[parquet\]'|column)"):
        list(documents(path))


def test_nothing_is_kept_open(tmp_path):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("the system does not list open files")
    path = _file(tmp_path, END_OF_TEXT.join("abc"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert len(list(documents(path))) == 3
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_phi_train_wrote_into_a_folder_of_texts_is_left_out(tmp_path, settings):
    _file(tmp_path, "One two three. " * 40)
    train(settings("runs/one", data=str(tmp_path), steps=2))
    prepare(str(tmp_path), tmp_path / "tokens", vocab_size=270)
    assert [path.name for path in files_of(tmp_path)] == ["stories.txt", "text.txt"]
    train(settings("runs/one", data=str(tmp_path), steps=3), resume=True)


def test_a_linked_folder_is_read_once(tmp_path):
    far, near = tmp_path / "far", tmp_path / "near"
    far.mkdir()
    near.mkdir()
    _file(far, "Far.")
    _file(near, "Near.", "near.txt")
    (near / "link").symlink_to(far)
    (far / "back").symlink_to(near)
    assert sorted(documents(near)) == ["Far.", "Near."]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_a_folder_that_may_not_be_read_is_told(tmp_path):
    _file(tmp_path, "One.")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    with pytest.raises(PermissionError):
        list(documents(tmp_path))
