"""Three parts of the held-out text, and stages of one run: nothing leaks, nothing is lost."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from phi_train import ConfigError, DataError, TrainConfig, train
from phi_train.corpus import builtin_stories, open_corpus
from phi_train.experiment import Stopped, Trial
from phi_train.experiment.execute import Task, execute
from phi_train.experiment.held_out import (
    PARTS,
    content_of,
    expanded,
    part_of,
    prepared_for,
    stream_of,
)
from phi_train.shards import open_prepared


def _texts(tokenizer, stream):
    documents, begin = [], 0
    for end in (stream.ids == stream.end_token).nonzero()[0].tolist():
        documents.append(tokenizer.decode(stream.ids[begin:end]))
        begin = end + 1
    return documents


@pytest.mark.parametrize("with_valid", [True, False])
def test_the_parts_are_all_of_it_and_nothing_twice(tmp_path, stories, with_valid):
    data, valid = tmp_path / "data.txt", tmp_path / "valid.txt"
    data.write_text("<|endoftext|>".join(stories(900, words=12)))
    valid.write_text("<|endoftext|>".join(stories(60, words=12, seed=5)))
    config = TrainConfig(
        data=str(data), valid=str(valid) if with_valid else "", vocab_size=270, preset="gpt-1k"
    )
    corpus = open_corpus(config.data, config.valid)
    found: Counter[str] = Counter()
    for part in PARTS:
        opened = open_prepared(prepared_for(config, part, tmp_path / "work").data)
        texts = _texts(opened.tokenizer, opened.valid)
        assert {part_of(text) for text in texts} == {part}
        assert _texts(opened.tokenizer, opened.train) == corpus.train, "what is held out stays so"
        found.update(texts)
    assert found == Counter(corpus.valid)


def test_each_part_has_about_a_third():
    texts, _ = builtin_stories(600, validation=True)
    counts = Counter(map(part_of, texts))
    assert all(160 < counts[part] < 240 for part in PARTS)


def test_the_sources_own_nats_stay_with_their_documents(tmp_path):
    config = TrainConfig(data="builtin", stories=200, vocab_size=270, preset="gpt-1k")
    texts, nats = builtin_stories(1000, validation=True)
    known = dict(zip(texts, nats, strict=True))
    prepared = prepared_for(config, "test", tmp_path)
    opened = open_prepared(prepared.data)
    stream = stream_of(prepared, opened.tokenizer.to_bytes(), "test")
    told = stream.source_nats.tolist()
    documents = _texts(opened.tokenizer, stream)
    assert len(documents) == len(told)
    assert all(known[text] == value for text, value in zip(documents, told, strict=True))


def test_a_part_without_a_document_is_told(tmp_path, stories):
    one = tmp_path / "one.txt"
    one.write_text(stories(1)[0])
    empty = next(part for part in PARTS if part != part_of(stories(1)[0]))
    config = TrainConfig(data="builtin", valid=str(one), stories=100, vocab_size=270)
    with pytest.raises(DataError, match=f"no held-out document for the part '{empty}'"):
        prepared_for(config, empty, tmp_path / "work")


def test_a_prepared_folder_is_measured_in_parts_too(tmp_path, corpus, stories):
    valid = tmp_path / "valid.txt"
    valid.write_text("<|endoftext|>".join(stories(60, words=12, seed=5)))
    config = TrainConfig(data=str(corpus), valid=str(valid), vocab_size=270)
    whole = prepared_for(config, "all", tmp_path / "a")
    part = prepared_for(whole, "search", tmp_path / "b")
    tokenizer = open_prepared(whole.data).tokenizer
    stream = stream_of(part, tokenizer.to_bytes(), "search")
    assert {part_of(text) for text in _texts(tokenizer, stream)} == {"search"}


def test_content_is_told_by_content(tmp_path, monkeypatch):
    for name, text in (("a", "One."), ("b", "One."), ("c", "Two.")):
        (tmp_path / f"{name}.txt").write_text(text)
    a, b, c = (content_of(str(tmp_path / f"{name}.txt")) for name in "abc")
    assert a == b != c
    with pytest.raises(DataError, match="does not exist"):
        content_of(str(tmp_path / "none.txt"))
    monkeypatch.setenv("SOME_PLACE", "/there")
    assert expanded("${SOME_PLACE}/x.txt") == "/there/x.txt"
    with pytest.raises(ConfigError, match="export NO_PLACE="):
        expanded("${NO_PLACE}/x.txt")


CONFIG = {
    **{"preset": "gpt-1k", "vocab_size": 270, "seq_len": 16, "steps": 24, "warmup_steps": 4},
    **{"eval_every": 1000, "sample_every": 0, "baselines": False, "checkpoint_every": 0},
}


def _task(folder, corpus, share, **changes):
    config = {"data": str(corpus), **CONFIG, **changes}
    trial = Trial(experiment="x", arm="a", config=config, seed=1, share=share, settings="s")
    return Task(trial=trial, work=str(folder), keep=True)


@pytest.mark.parametrize("optimizer", ["adamw", "schedule-free"])
def test_a_run_looked_at_on_its_way_ends_like_one_that_was_not(tmp_path, corpus, optimizer):
    whole = execute(_task(tmp_path / "whole", corpus, 1.0, optimizer=optimizer))
    assert whole.error == ""
    stages = [
        execute(_task(tmp_path / "staged", corpus, share, optimizer=optimizer))
        for share in (0.25, 0.5, 1.0)
    ]
    assert [o.steps for o in stages] == [6, 12, 24]
    assert stages[0].metrics["loss"] > stages[1].metrics["loss"] > stages[2].metrics["loss"]
    assert stages[2].metrics == whole.metrics, "to the last bit"
    assert stages[2].flops == whole.flops


def test_the_figures_are_those_of_phi_train_itself(tmp_path, corpus):
    outcome = execute(_task(tmp_path / "work", corpus, 1.0))
    config = TrainConfig.from_dict(
        {"data": str(corpus), **CONFIG, "seed": 1, "workers": "1", "out": str(tmp_path / "run")}
    )
    expected = train(config).evaluation
    assert outcome.metrics["loss"] == pytest.approx(expected.loss, rel=1e-6)
    assert outcome.metrics["bits_per_byte"] == pytest.approx(expected.bits_per_byte, rel=1e-6)
    assert outcome.metrics["measured_tokens"] == expected.tokens


def test_a_trial_that_is_stopped_goes_on_to_the_same_end(tmp_path, corpus):
    whole = execute(_task(tmp_path / "whole", corpus, 1.0))
    asked = iter([False] * 9 + [True] * 3)
    task = _task(tmp_path / "stopped", corpus, 1.0)
    with pytest.raises(Stopped):
        execute(task, lambda: next(asked))
    lines = (task.folder / "metrics.jsonl").read_text().splitlines()
    assert 0 < max(json.loads(line)["step"] for line in lines) < 24
    assert execute(task).metrics == whole.metrics
