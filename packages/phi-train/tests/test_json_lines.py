"""Appended lines, byte by byte: whatever is cut off, and however little room there is."""

from __future__ import annotations

import errno
import json

import pytest

from phi_train.json_lines import append, object_of, whole_objects

LINES = [{"a": 1}, {"b": "\u00e4\n"}, {"c": [1, None]}]
CONTENT = b"".join(json.dumps(line).encode() + b"\n" for line in LINES)


class Disk:
    """A file on a disk with room for so many bytes more; each write takes three at most."""

    def __init__(self, file, room):
        self._file, self._room = file, room

    def write(self, data):
        if not self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = bytes(data)[: min(3, self._room)]
        self._room -= len(part)
        return self._file.write(part)

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.mark.parametrize("room", range(len(CONTENT) + 1))
def test_all_of_it_is_there_or_nothing(tmp_path, room):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"first": 1}\n')
    before = path.stat().st_size
    with path.open("ab", buffering=0) as file:
        if room < len(CONTENT):
            with pytest.raises(OSError, match="No space"):
                append(Disk(file, room), CONTENT, end=before)
        else:
            append(Disk(file, room), CONTENT, end=before)
    whole = [{"first": 1}, *(LINES if room == len(CONTENT) else [])]
    assert list(whole_objects(path)) == whole
    assert path.stat().st_size == before + (len(CONTENT) if len(whole) > 1 else 0)


def test_a_torn_line_is_cut_off_and_nothing_else(tmp_path):
    path = tmp_path / "lines.jsonl"
    for size in range(len(CONTENT) + 1):
        path.write_bytes(CONTENT[:size])
        end = CONTENT[:size].rfind(b"\n") + 1
        assert list(whole_objects(path)) == LINES[: CONTENT[:size].count(b"\n")]
        with path.open("ab", buffering=0) as file:
            append(file, b'{"new": 1}\n', end=end)
        assert path.read_bytes() == CONTENT[:end] + b'{"new": 1}\n'


def test_it_is_on_the_disk_when_the_call_returns_unless_that_is_not_asked_for(
    tmp_path, monkeypatch
):
    synced = []
    monkeypatch.setattr("os.fsync", synced.append)
    with (tmp_path / "lines.jsonl").open("ab", buffering=0) as file:
        append(file, b"{}\n", end=0, sync=False)
        assert synced == []
        append(file, b"{}\n", end=3)
        assert synced == [file.fileno()]


@pytest.mark.parametrize("line", ["", "[1]", "7", "{", "\x00", "[" * 100_000, b"\xff\xfe{", "nan"])
def test_what_is_no_object(line):
    assert object_of(line) is None


def test_no_file_no_lines(tmp_path):
    assert list(whole_objects(tmp_path / "none.jsonl")) == []
