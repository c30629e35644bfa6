"""Prepared folders hold what encoding in memory gives, whatever happened while they were made."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import phi_train.inputs
import phi_train.prepare
import phi_train.ranges
from phi_tokenizer import Tokenizer
from phi_train import ConfigError, DataError
from phi_train.corpus import open_corpus
from phi_train.documents import END_OF_TEXT, documents
from phi_train.one_process import only_one
from phi_train.prepare import is_prepared, open_prepared, prepare
from phi_train.ranges import parts_of, pieces_in
from phi_train.split import Tail, tail_of
from phi_train.tokens import encode_documents, split_documents


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Many parts and journal entries also for a small text."""

    def small(path, *, may_cut, size=400):
        return parts_of(path, may_cut=may_cut, size=size)

    monkeypatch.setattr(phi_train.inputs, "parts_of", small)
    monkeypatch.setattr(phi_train.prepare, "JOURNAL_BYTES", 2000)


def _save(tokenizer, tmp_path):
    path = tmp_path / "given.json"
    tokenizer.save(path)
    return path


def same_stream(one, two):
    assert one.ids.dtype == two.ids.dtype
    assert np.array_equal(one.ids, two.ids)
    assert one.end_token == two.end_token
    assert one.n_documents == two.n_documents
    assert one.text_bytes == two.text_bytes
    assert np.array_equal(one.document_bytes, two.document_bytes)
    assert one.checksum == two.checksum


def same_as_in_memory(folder, source, valid=""):
    """A prepared folder equals split and encoding in memory, with the folder's tokenizer."""
    data = open_prepared(folder, verify=True)
    corpus = open_corpus(str(source), str(valid))
    same_stream(data.train, encode_documents(corpus.train, data.tokenizer))
    same_stream(data.valid, encode_documents(corpus.valid, data.tokenizer))
    ends = np.flatnonzero(data.train.ids == data.train.end_token) + 1
    assert np.array_equal(data.train.document_ends, ends)


def content(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_as_in_memory(tmp_path, corpus, tokenizer, workers):
    out = tmp_path / "tokens"
    report = prepare(str(corpus), out, tokenizer=_save(tokenizer, tmp_path), workers=workers)
    assert not report.already
    assert is_prepared(out)
    assert not is_prepared(tmp_path)
    same_as_in_memory(out, corpus)
    assert open_prepared(out).tokenizer == tokenizer
    assert isinstance(open_prepared(out).train.ids, np.memmap)
    assert not open_prepared(out).train.ids.flags.writeable


def test_a_learnt_tokenizer_is_that_of_the_training_documents(tmp_path, corpus):
    prepare(str(corpus), tmp_path / "tokens", vocab_size=280)
    train, _ = split_documents(documents(corpus))
    learnt = Tokenizer.train(train, vocab_size=280, special_tokens=[END_OF_TEXT])
    assert open_prepared(tmp_path / "tokens").tokenizer == learnt
    same_as_in_memory(tmp_path / "tokens", corpus)


def test_a_sample_of_much_text_is_enough_for_a_tokenizer(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr(phi_train.prepare, "SAMPLE_BYTES", 4000)
    prepare(str(corpus), tmp_path / "tokens", vocab_size=280)
    same_as_in_memory(tmp_path / "tokens", corpus)


def test_folders_json_lines_and_a_source_to_measure_on(tmp_path, stories, tokenizer):
    folder = tmp_path / "texts"
    folder.mkdir()
    texts = stories(90, seed=3)
    (folder / "a.txt").write_text(END_OF_TEXT.join(texts[:50]))
    (folder / "b.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts[50:]))
    valid = tmp_path / "valid.txt"
    valid.write_text(END_OF_TEXT.join(stories(5, seed=4)))
    given = _save(tokenizer, tmp_path)
    prepare(str(folder), tmp_path / "one", tokenizer=given)
    same_as_in_memory(tmp_path / "one", folder)
    prepare(str(folder), tmp_path / "two", tokenizer=given, valid=str(valid))
    same_as_in_memory(tmp_path / "two", folder, valid)


def test_builtin_stories_keep_their_probabilities(tmp_path):
    prepare("builtin", tmp_path / "tokens", stories=50, vocab_size=300)
    data = open_prepared(tmp_path / "tokens", verify=True)
    corpus = open_corpus("builtin", n_stories=50)
    same_stream(data.train, encode_documents(corpus.train, data.tokenizer))
    same_stream(data.valid, encode_documents(corpus.valid, data.tokenizer))
    assert data.valid.source_nats.tolist() == corpus.valid_nats


WORDS = st.sampled_from(["a", " b", " cd.", "é", "\n", " 12", "日本", "  ", " Lily", END_OF_TEXT])


@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
@given(text=st.lists(WORDS, max_size=400).map("".join), size=st.integers(1, 60), cut=st.booleans())
def test_parts_hold_the_documents_of_the_whole(tmp_path, text, size, cut):
    path = tmp_path / "x.txt"
    path.write_bytes(text.encode())
    found, begun = [], ""
    for part in parts_of(path, may_cut=cut, size=size):
        for piece in pieces_in(part):
            begun += piece.text
            if piece.closes:
                found.append(begun)
                begun = ""
    assert (found, begun) == (list(documents(path)), "")


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "none"])
@pytest.mark.parametrize("n", [1, 2, 12])
def test_a_few_long_documents_are_cut_without_a_trace(tmp_path, stories, n, pattern):
    """Far longer than a part: read in pieces, split at the tail, the same to the last id."""
    if pattern == "cl100k":
        pytest.importorskip("regex")
    texts = ["  \n" + " ".join(stories(90, seed=i)) + " \n" for i in range(n)]
    source = tmp_path / "long.txt"
    source.write_text(END_OF_TEXT.join(texts))
    trained = Tokenizer.train(texts, vocab_size=300, special_tokens=[END_OF_TEXT], pattern=pattern)
    pieces = [p for part in parts_of(source, may_cut=True, size=400) for p in pieces_in(part)]
    assert sum(not piece.closes for piece in pieces) > 10 * n
    prepare(str(source), tmp_path / "tokens", tokenizer=_save(trained, tmp_path))
    same_as_in_memory(tmp_path / "tokens", source)


def test_long_documents_among_many_go_by_their_hash(tmp_path, stories, tokenizer):
    texts = stories(300, words=12)
    texts[30::3] = [" ".join(stories(12, seed=i)) for i in range(90)]
    source = tmp_path / "mixed.txt"
    source.write_text(END_OF_TEXT.join(texts))
    _, valid = split_documents(texts)
    assert any(len(text) > 2000 for text in valid)
    prepare(str(source), tmp_path / "tokens", tokenizer=_save(tokenizer, tmp_path))
    same_as_in_memory(tmp_path / "tokens", source)


def test_where_the_hash_holds_out_nothing_the_tail_is(tmp_path, stories, tokenizer):
    train, _ = split_documents(stories(80, seed=7))
    source = tmp_path / "lucky.txt"
    source.write_text(END_OF_TEXT.join(train[:45]))
    prepare(str(source), tmp_path / "tokens", tokenizer=_save(tokenizer, tmp_path))
    same_as_in_memory(tmp_path / "tokens", source)


@given(st.lists(st.integers(1, 60), max_size=12))
def test_the_tail_is_that_of_split_documents(lengths):
    texts = [("ab " * 20)[:n].strip() or "x" for n in lengths]
    rule = tail_of([len(t) for t in texts])
    sides: dict[str, list[str]] = {"train": [], "valid": []}
    for number, text in enumerate(texts):
        for side, part, _ in rule.divide(phi_train.ranges.Piece(text, document=number)):
            sides[side].append(part)
    assert (sides["train"], sides["valid"]) == split_documents(texts)
    assert isinstance(rule, Tail)


# a second call


def test_a_second_call_does_nothing(tmp_path, corpus):
    out = tmp_path / "tokens"
    first = prepare(str(corpus), out, vocab_size=280)
    before = content(out)
    times = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    second = prepare(str(corpus), out, vocab_size=280)
    assert second.already
    assert second.manifest == first.manifest
    assert content(out) == before
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == times


def test_the_same_text_under_another_name_is_the_same(tmp_path, corpus):
    prepare(str(corpus), tmp_path / "tokens", vocab_size=280)
    other = tmp_path / "other.txt"
    shutil.copy(corpus, other)
    assert prepare(str(other), tmp_path / "tokens", vocab_size=280).already


def test_anything_else_is_made_anew(tmp_path, corpus, tokenizer):
    out, given = tmp_path / "tokens", _save(tokenizer, tmp_path)
    prepare(str(corpus), out, vocab_size=280)
    assert not prepare(str(corpus), out, vocab_size=281).already
    assert not prepare(str(corpus), out, tokenizer=given).already
    opened = open_prepared(out)  # keeps its pages while the folder changes
    ids = opened.train.ids.tolist()
    text = corpus.read_text()
    corpus.write_text(text.replace("Lily", "Lulu"))
    assert not prepare(str(corpus), out, tokenizer=given).already
    same_as_in_memory(out, corpus)
    assert opened.train.ids.tolist() == ids


@pytest.mark.parametrize("name", ["train.tokens", "valid.documents", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "shorter", "changed"])
def test_damage_is_told_and_mended(tmp_path, corpus, name, damage):
    out = tmp_path / "tokens"
    prepare(str(corpus), out, vocab_size=280)
    before = content(out)
    path = out / name
    if damage == "missing":
        path.unlink()
    elif damage == "shorter":
        path.write_bytes(before[name][:-2])
    else:
        data = bytearray(before[name])
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with pytest.raises(DataError, match=rf"{name} is damaged: .*prepare again"):
        open_prepared(out, verify=True)
    assert not prepare(str(corpus), out, vocab_size=280).already
    assert content(out) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "manifest.json is damaged: it is no manifest"),
        ("[]", "manifest.json is damaged: it is no manifest"),
        (
            '{"format": "phi-tokens", "version": 1, "sides": {"train": 0, "valid": 0}}',
            r"manifest.json is damaged: it is no manifest \(KeyError\('files'\)\)",
        ),
        ('{"format": "x", "version": 1, "sides": {}}', "is not a manifest of phi-tokens"),
        (
            '{"format": "phi-tokens", "version": 9, "sides": {"train": 0, "valid": 0}}',
            "has version 9",
        ),
    ],
)
def test_a_manifest_that_is_none(tmp_path, text, words):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=words):
        open_prepared(tmp_path)


def test_a_folder_that_is_not_prepared(tmp_path):
    with pytest.raises(DataError, match="is not a prepared folder, it has no manifest"):
        open_prepared(tmp_path)


# interruptions


class _Killed(BaseException):
    """As sudden as a kill, but in this process."""


@pytest.mark.parametrize("at", range(1, 40, 3))
def test_interrupted_anywhere_it_goes_on(tmp_path, corpus, tokenizer, monkeypatch, at):
    """Stops at the at-th time that anything is synced or renamed; the next call completes it."""
    given = _save(tokenizer, tmp_path)
    prepare(str(corpus), tmp_path / "whole", tokenizer=given)
    calls = 0

    def counting(function):
        def wrapped(*args):
            nonlocal calls
            calls += 1
            if calls == at:
                raise _Killed
            return function(*args)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", counting(os.fsync))
        patch.setattr(os, "replace", counting(os.replace))
        try:
            prepare(str(corpus), tmp_path / "tokens", tokenizer=given)
        except _Killed:
            assert not is_prepared(tmp_path / "tokens")
    report = prepare(str(corpus), tmp_path / "tokens", tokenizer=given)
    assert content(tmp_path / "tokens") == content(tmp_path / "whole")
    assert report.already == (calls < at)


def test_it_goes_on_and_does_not_begin_again(tmp_path, stories, tokenizer, monkeypatch):
    given, seen = _save(tokenizer, tmp_path), []
    source = tmp_path / "text.txt"
    source.write_text(END_OF_TEXT.join(stories(200)))
    encode = phi_train.prepare.encode_parts

    def watched(parts, split, tokenizer, *, workers):
        for part, encoded in encode(parts, split, tokenizer, workers=workers):
            seen.append(part.begin)
            if len(seen) == 30:
                raise _Killed
            yield part, encoded

    monkeypatch.setattr(phi_train.prepare, "encode_parts", watched)
    with pytest.raises(_Killed):
        prepare(str(source), tmp_path / "tokens", tokenizer=given)
    done = json.loads((tmp_path / "tokens/.partial/journal.json").read_text())["parts"]
    assert 20 < done < 30
    prepare(str(source), tmp_path / "tokens", tokenizer=given)
    assert seen[30] == seen[done]
    same_as_in_memory(tmp_path / "tokens", source)


def test_a_partial_folder_of_something_else_is_dropped(tmp_path, corpus, tokenizer):
    partial = tmp_path / "tokens" / ".partial"
    partial.mkdir(parents=True)
    (partial / "journal.json").write_text('{"fingerprint": "old", "parts": 3}')
    (partial / "train.tokens").write_bytes(b"rubbish")
    prepare(str(corpus), tmp_path / "tokens", tokenizer=_save(tokenizer, tmp_path))
    same_as_in_memory(tmp_path / "tokens", corpus)
    assert not partial.exists()


SCRIPT = """
import sys
import phi_train.inputs, phi_train.prepare
from phi_train.ranges import parts_of
phi_train.prepare.JOURNAL_BYTES = 2000
phi_train.inputs.parts_of = lambda path, may_cut: parts_of(path, may_cut=may_cut, size=400)
if __name__ == "__main__":
    phi_train.prepare.prepare(
        sys.argv[1], sys.argv[2], tokenizer=sys.argv[3], workers=int(sys.argv[4])
    )
"""


def changed(path):
    """When a file was written last; None when there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


@pytest.mark.parametrize("workers", [1, 2])
def test_kill_9_at_any_moment(tmp_path, stories, tokenizer, workers):
    source, given = tmp_path / "text.txt", _save(tokenizer, tmp_path)
    source.write_text(END_OF_TEXT.join(stories(900)))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    out = tmp_path / "tokens"
    command = [sys.executable, str(script), str(source), str(out), str(given), str(workers)]
    kills = 0
    for wait in (0.0, 0.01, 0.03, 0.1) if workers == 1 else (0.0, 0.05):
        before = changed(out / ".partial" / "journal.json")
        child = subprocess.Popen(command, stderr=subprocess.PIPE)
        while child.poll() is None and changed(out / ".partial" / "journal.json") == before:
            time.sleep(0.001)
        time.sleep(wait)  # from when it is at work, however slow the machine
        child.send_signal(signal.SIGKILL)
        _, errors = child.communicate(timeout=20)  # ends when its workers are gone as well
        assert b"Traceback" not in errors
        kills += child.returncode == -signal.SIGKILL
        assert not is_prepared(out) or open_prepared(out, verify=True)
    assert kills
    subprocess.run(command, check=True, timeout=60)
    same_as_in_memory(out, source)
    assert sorted(content(out)) == sorted(
        open_prepared(out).manifest["files"] | {"manifest.json": 0}
    )


def test_a_full_disk_is_told_and_the_next_call_goes_on(tmp_path, corpus, tokenizer, monkeypatch):
    given = _save(tokenizer, tmp_path)
    with monkeypatch.context() as patch:

        def full(_handle):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as caught:
            prepare(str(corpus), tmp_path / "tokens", tokenizer=given)
        assert str(tmp_path / "tokens") in caught.value.filename
    assert not is_prepared(tmp_path / "tokens")
    prepare(str(corpus), tmp_path / "tokens", tokenizer=given)
    same_as_in_memory(tmp_path / "tokens", corpus)


def test_two_at_once_are_refused(tmp_path, corpus, tokenizer):
    given, out = _save(tokenizer, tmp_path), tmp_path / "tokens"
    out.mkdir()
    with only_one(out), pytest.raises(DataError, match="another process is at work in"):
        prepare(str(corpus), out, tokenizer=given)
    prepare(str(corpus), out, tokenizer=given)


def test_a_text_that_changes_meanwhile_is_noticed(tmp_path, corpus, tokenizer, monkeypatch):
    given = _save(tokenizer, tmp_path)
    encode = phi_train.prepare.encode_parts

    def meddling(*args, **options):
        yield from encode(*args, **options)
        corpus.write_text(corpus.read_text() + " More.")

    monkeypatch.setattr(phi_train.prepare, "encode_parts", meddling)
    with pytest.raises(DataError, match="was changed while it was read"):
        prepare(str(corpus), tmp_path / "tokens", tokenizer=given)
    assert not (tmp_path / "tokens").exists()


# what cannot be prepared


def test_what_cannot_be_prepared(tmp_path, corpus, tokenizer):
    out = tmp_path / "tokens"
    with pytest.raises(DataError, match=r"nowhere\.txt does not exist"):
        prepare(str(tmp_path / "nowhere.txt"), out)
    empty = tmp_path / "empty.txt"
    empty.write_text(f" \n{END_OF_TEXT} ")
    with pytest.raises(DataError, match=r"empty\.txt holds no text"):
        prepare(str(empty), out)
    with pytest.raises(DataError, match=r"empty\.txt holds no text"):
        prepare(str(empty), out, tokenizer=_save(tokenizer, tmp_path))
    with pytest.raises(DataError, match=r"empty\.txt holds no text"):
        prepare(str(corpus), out, valid=str(empty), vocab_size=280)
    short = tmp_path / "short.txt"
    short.write_text("short")
    with pytest.raises(DataError, match=r"the held-out part of .*short\.txt holds no text"):
        prepare(str(short), out, vocab_size=257)
    plain = tmp_path / "plain.json"
    Tokenizer.train("ab" * 10, vocab_size=257).save(plain)
    with pytest.raises(DataError, match="the tokenizer has no"):
        prepare(str(corpus), out, tokenizer=plain)
    for size, words in ((65537, r"65,537 tokens; .* at most 65,536"), (256, "need 257 or more")):
        with pytest.raises(ConfigError, match=words):
            prepare(str(corpus), out, vocab_size=size)
    with pytest.raises(ConfigError, match="--workers is 0"):
        prepare(str(corpus), out, workers=0)
    assert not out.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_byte_that_is_not_utf8_is_named(tmp_path, stories, tokenizer, workers):
    data = END_OF_TEXT.join(stories(60)).encode()
    source = tmp_path / "latin.txt"
    source.write_bytes(data[:5000] + b"\xe7" + data[5000:])
    with pytest.raises(DataError, match=r"latin\.txt is not UTF-8 text: byte 5000 is 0xe7"):
        prepare(
            str(source), tmp_path / "out", tokenizer=_save(tokenizer, tmp_path), workers=workers
        )
    assert not (tmp_path / "out").exists()


def test_a_bad_line_is_named_by_its_number_in_the_whole_file(tmp_path, stories, tokenizer):
    lines = [json.dumps({"text": text}) for text in stories(60)]
    lines[47] = '{"story": "x"}'
    source = tmp_path / "bad.jsonl"
    source.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"bad\.jsonl, line 48: each line must be"):
        prepare(str(source), tmp_path / "out", tokenizer=_save(tokenizer, tmp_path))


def test_a_prepared_folder_is_not_prepared_again(tmp_path, corpus):
    prepare(str(corpus), tmp_path / "tokens", vocab_size=280)
    with pytest.raises(DataError, match="is prepared already: give it to phi-train run"):
        prepare(str(tmp_path / "tokens"), tmp_path / "other")
