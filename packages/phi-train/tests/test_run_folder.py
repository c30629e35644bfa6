"""A run's folder, and a metrics log that never holds half a line, whatever the disk does."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from phi_model.files import atomic_write
from phi_train import RunError
from phi_train.run_folder import MetricsLog, RunFolder, naming


class FullDisk:
    """Takes so many bytes, then as a full disk does: a part of a write, then an error."""

    def __init__(self, file, room):
        self._file, self._room = file, room

    def write(self, data):
        if self._room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = bytes(data)[: self._room]
        self._room -= len(part)
        return self._file.write(part)

    def __getattr__(self, name):
        return getattr(self._file, name)


def _lines(path: Path):
    text = path.read_text()
    assert text.endswith("\n") or not text
    return [json.loads(line) for line in text.splitlines()]


def test_lines_are_there_at_once(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2):
        log.write(step=step, loss=0.5)
        assert _lines(tmp_path / "metrics.jsonl")[-1] == {"step": step, "loss": 0.5}
    log.close()


@pytest.mark.parametrize("room", range(0, 60, 7))
def test_a_full_disk_leaves_whole_lines(tmp_path, room):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.write(step=1, loss=1.5)
    log._file = FullDisk(log._file, room)
    fitting = room // len('{"step": 2, "loss": 1.5}\n')
    for step in range(2, 2 + fitting):
        log.write(step=step, loss=1.5)
    with pytest.raises(OSError, match="No space") as caught:
        log.write(step=2 + fitting, loss=1.5)
    log.close()
    assert caught.value.filename == str(path)
    assert [line["step"] for line in _lines(path)] == list(range(1, 2 + fitting))


def test_resuming_cuts_off_what_came_after(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in range(1, 6):
        log.write(step=step, loss=step / 2)
    log.close()
    log = MetricsLog(path, keep_steps=3)
    log.write(step=4, loss=9.0)
    log.close()
    assert [(line["step"], line["loss"]) for line in _lines(path)] == [
        (1, 0.5),
        (2, 1.0),
        (3, 1.5),
        (4, 9.0),
    ]


def test_an_evaluation_that_no_checkpoint_knows_is_measured_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"step": 5, "valid_loss": 2.0},
        {"step": 9, "loss": 1.0},
        {"step": 9, "valid_loss": 1.5},
    ]
    for evaluated_at, kept in ((5, 2), (9, 3), (None, 3)):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        MetricsLog(path, keep_steps=9, evaluated_at=evaluated_at).close()
        assert _lines(path) == lines[:kept]


def test_a_step_that_is_no_number_is_where_the_log_ends(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": "a"}\n{"step": 2}\n')
    MetricsLog(path, keep_steps=9).close()
    assert _lines(path) == [{"step": 1}]


def test_prepared_data_is_no_place_for_a_run(tmp_path):
    (tmp_path / "manifest.json").touch()
    with pytest.raises(RunError, match="holds prepared data"):
        RunFolder(tmp_path).must_be_unused()


def test_the_final_line_is_written_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for _ in range(2):
        log = MetricsLog(path, keep_steps=2)
        log.write(step=2, final_loss=1.0)
        log.close()
    assert len(_lines(path)) == 1


@pytest.mark.parametrize(
    "tail", ['{"step": 3, "lo', '{"step": 3}', "\x00\x00\x00\n", "7\n", "[]\n"[:1]]
)
def test_half_a_line_of_a_crash_is_dropped(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n' + tail)
    MetricsLog(path, keep_steps=10).close()
    assert [line["step"] for line in _lines(path)] == [1, 2]


def test_an_error_names_the_file_not_a_temporary_one(tmp_path):
    target = tmp_path / "last.phi"
    with pytest.raises(OSError, match="full") as caught, naming(target):
        raise OSError(errno.ENOSPC, "full")
    assert caught.value.filename == str(target)
    for name in (None, str(tmp_path / ".last.phi.abc~")):
        with pytest.raises(OSError, match="full") as caught, atomic_write(target):
            raise OSError(errno.ENOSPC, "full", name)
        assert caught.value.filename == str(target)
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "no" / "a.phi"):
        pass
    assert caught.value.filename == str(tmp_path / "no" / "a.phi")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="full") as caught, naming(target):
        raise OSError(errno.ENOENT, "full", "other.txt")
    assert caught.value.filename == "other.txt"


def test_last_is_a_second_name_or_a_copy(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    folder.create()
    for step, linked in ((1, True), (2, False)):
        if not linked:
            monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
        checkpoint = folder.checkpoint(step)
        checkpoint.write_bytes(bytes([step]) * 10)
        folder.publish_last(checkpoint)
        assert folder.last.read_bytes() == checkpoint.read_bytes()
        assert folder.last.samefile(checkpoint) is linked
    assert sorted(p.name for p in folder.path.iterdir()) == ["checkpoints", "last.phi"]


def test_a_folder_with_a_run_is_refused(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.must_be_unused()
    folder.create()
    folder.must_be_unused()
    folder.write(folder.config, b"data = 'x'")
    with pytest.raises(
        RunError, match=r"already holds a run: continue it with --resume, or .*--out"
    ):
        folder.must_be_unused()


def test_names_that_are_not_taken(tmp_path):
    for expected in ("gpt-1m", "gpt-1m-2", "gpt-1m-3"):
        folder = RunFolder.unused("gpt-1m", parent=tmp_path)
        assert folder.path.name == expected
        folder.create()


def test_the_newest_checkpoints_stay(tmp_path):
    folder = RunFolder(tmp_path)
    folder.create()
    for step in (500, 999_999, 1_000_000, 1_000_500):
        folder.checkpoint(step).touch()
    folder.drop_checkpoints(keep=2, step=1_000_500)
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-1000000.phi", "step-1000500.phi"]
    assert folder.checkpoint(12).name == "step-000012.phi"


def test_damaged_later_checkpoints_take_nobodys_place(tmp_path):
    folder = RunFolder(tmp_path)
    folder.create()
    for step in (10, 20, 30, 40):
        folder.checkpoint(step).touch()
    folder.drop_checkpoints(keep=1, step=20)
    names = [p.name for p in folder.numbered()]
    assert names == ["step-000020.phi", "step-000030.phi", "step-000040.phi"]


def test_unfinished_files_are_swept_away(tmp_path):
    folder = RunFolder(tmp_path)
    folder.create()
    for place in (tmp_path, tmp_path / "checkpoints"):
        (place / ".last.phi.ab12~").touch()
    (tmp_path / "notes~").touch()
    folder.sweep()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoints", "notes~"]
    assert list((tmp_path / "checkpoints").iterdir()) == []


END = {"step": 1, "final_loss": 2.0, "bits_per_byte": 1.0, "valid_tokens": 9, "text_bytes": 20}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, None),
        ("", None),
        ('{"step": 1}\n', None),
        ('{"step": 1}\n' + json.dumps(END) + "\n", END),
        (json.dumps(END | {"final_loss": "2"}) + "\n", None),
        (json.dumps(END | {"baselines": 3}) + "\n", None),
        ('{"step": 1, "final_loss": 2.0}\n', None),
        ('{"final_loss": 2.0}\n{"step": 1}\n', None),
        ('{"step": 1, "final_lo', None),
        ("7\n", None),
    ],
)
def test_the_final_line(tmp_path, content, expected):
    folder = RunFolder(tmp_path)
    if content is not None:
        folder.metrics.write_text(content)
    assert folder.final_line() == expected
