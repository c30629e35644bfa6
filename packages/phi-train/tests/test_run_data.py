"""Long texts go through token shards, and give the same run as in memory."""

from __future__ import annotations

import pytest

import phi_train.run_data
from phi_tokenizer import Tokenizer
from phi_train import DataError, train
from phi_train.prepare import prepare
from phi_train.shards import is_prepared


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Every text is a long one from here on; the folder of their shards."""

    def make():
        def never(*_args, **_rest):
            raise AssertionError("a long text was read into memory")

        monkeypatch.setenv("PHI_DATA", str(tmp_path / "cache"))
        monkeypatch.setattr(phi_train.run_data, "LARGE", 0)
        monkeypatch.setattr(phi_train.run_data, "open_corpus", never)
        return tmp_path / "cache" / "tokens"

    return make


def _weights(result):
    return result.folder.last.read_bytes()


def test_the_same_run_as_in_memory(settings, cache, listener, tmp_path):
    in_memory = train(settings("memory"))
    folder = cache()
    long = train(settings("long"), progress=listener)
    (made,) = folder.iterdir()
    assert is_prepared(made)
    assert long.evaluation == in_memory.evaluation
    assert long.baselines == in_memory.baselines
    assert _weights(long) == _weights(in_memory)
    assert [line for line in listener.lines if "token shards, made once in" in line]
    assert "100 %" in "".join(line for line in listener.lines if "encoding" in line)
    assert not list((tmp_path / "long").glob("*.tokens"))  # the run's own folder stays small


def test_the_second_run_finds_them(settings, cache):
    folder = cache()
    train(settings("one"))
    (made,) = folder.iterdir()
    before = {path.name: path.stat().st_mtime_ns for path in made.iterdir()}
    train(settings("two", seed=1))
    assert {path.name: path.stat().st_mtime_ns for path in made.iterdir()} == before
    assert list(folder.iterdir()) == [made]


def test_a_run_begun_in_memory_goes_on_with_shards(settings, cache, stop_at):
    whole = train(settings("whole"))
    assert not train(settings("broken"), progress=stop_at(9)).finished
    cache()
    assert _weights(train(settings("broken"), resume=True)) == _weights(whole)


def test_text_to_measure_on_and_a_tokenizer_that_is_given(
    settings, cache, stories, tokenizer, tmp_path
):
    held_out, given = tmp_path / "held-out.txt", tmp_path / "given.json"
    held_out.write_text("<|endoftext|>".join(stories(12, seed=9)))
    tokenizer.save(given)
    options = {"valid": str(held_out), "tokenizer": str(given)}
    in_memory = train(settings("memory", **options))
    cache()
    long = train(settings("long", **options))
    assert long.evaluation == in_memory.evaluation
    assert _weights(long) == _weights(in_memory)


def test_fine_tuning_keeps_the_tokenizer_of_the_weights(settings, cache, stories, tmp_path):
    first = train(settings("first"))
    own = tmp_path / "own.txt"
    own.write_text("<|endoftext|>".join(stories(60, seed=5, words=30)))
    folder = cache()
    options = {"data": str(own), "init_from": str(first.folder.best)}
    tuned = train(settings("tuned", **options))
    assert tuned.folder.tokenizer.read_bytes() == first.folder.tokenizer.read_bytes()
    (made,) = folder.iterdir()
    assert Tokenizer.load(made / "tokenizer.json") == Tokenizer.load(first.folder.tokenizer)


def test_a_damaged_shard_is_told_before_the_run_begins(settings, corpus, tmp_path):
    folder = tmp_path / "tokens"
    prepare(str(corpus), folder, vocab_size=270)
    tokens = bytearray((folder / "train.tokens").read_bytes())
    tokens[501] ^= 0x80  # an id that no model knows
    (folder / "train.tokens").write_bytes(tokens)
    with pytest.raises(DataError, match=r"train\.tokens is damaged: its content has changed"):
        train(settings(data=str(folder)))
    assert not (tmp_path / "run").exists()


def test_a_text_that_changed_is_made_anew(settings, cache, corpus, stories):
    folder = cache()
    before = train(settings("one")).evaluation
    corpus.write_text("<|endoftext|>".join(stories(70, seed=8)))
    after = train(settings("two")).evaluation
    assert len(list(folder.iterdir())) == 1
    assert after.documents != before.documents or after.loss != before.loss
