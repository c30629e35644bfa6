"""The builtin stories as a source: sides that never meet, a paired gap, the demo in small."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest

from phi_model import ModelConfig, build_model
from phi_tokenizer import Tokenizer
from phi_train import TrainConfig, cli, cli_demo, demo
from phi_train.corpus import (
    builtin_stories,
    documents_to_measure,
    open_corpus,
    stories_for,
    with_stories,
)
from phi_train.demo import StoryCheck, check_stories, demo_config
from phi_train.evaluate import evaluate
from phi_train.loop import train
from phi_train.stories import StoryGrammar
from phi_train.tokens import encode_documents


@pytest.fixture
def phi_train(monkeypatch, capsys):
    """The command, in this process."""

    def invoke(*args):
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main changes it
        monkeypatch.setattr(sys, "argv", ["phi-train", *args])
        with pytest.raises(SystemExit) as leave:
            cli.main()
        said = capsys.readouterr()
        return subprocess.CompletedProcess(args, leave.value.code, said.out, said.err)

    return invoke


@pytest.fixture(scope="module")
def corpus():
    return open_corpus("builtin", n_stories=300)


@pytest.fixture(scope="module")
def tokenizer(corpus):
    return Tokenizer.train(corpus.train, vocab_size=300, special_tokens=["<|endoftext|>"])


def test_no_story_is_on_both_sides(corpus):
    assert len(corpus.train) == 300
    assert len(corpus.valid) == 1000
    assert not set(corpus.train) & set(corpus.valid)


def test_the_nats_of_a_validation_story_are_the_parsers(corpus):
    grammar = StoryGrammar()
    for text, nats in list(zip(corpus.valid, corpus.valid_nats, strict=True))[:50]:
        assert nats == pytest.approx(-grammar.log_prob(text), abs=1e-9)


def test_the_same_stories_every_time(corpus):
    assert builtin_stories(20, validation=False)[0] == corpus.train[:20]
    assert documents_to_measure("builtin")[0][:20] == corpus.valid[:20]


def test_a_budget_is_covered_within_bounds():
    assert stories_for(1) == 2_000
    assert stories_for(900_000) == 10_000
    assert stories_for(10**12) == 200_000


def test_only_a_number_that_was_left_open_follows_from_the_budget():
    def number(**changes):
        return with_stories(TrainConfig(**({"data": "builtin"} | changes))).stories

    assert number(tokens=90 * 512 * 50) == 25_600
    assert number(steps=4_000, batch_size=10, seq_len=90) == 40_000
    assert number(seconds=60.0) == 20_000, "how many updates that is nobody knows before"
    assert number(steps=4_000, stories=7) == 7
    assert number(steps=4_000, data="stories.txt") == 0


def test_the_gap_is_the_models_bits_less_the_sources_paired(corpus, tokenizer):
    texts, nats = corpus.valid[:30], corpus.valid_nats[:30]
    stream = encode_documents(texts, tokenizer, source_nats=nats)
    config = ModelConfig.preset("gpt-1k", vocab_size=tokenizer.n_vocab, seq_len=32)
    model = build_model(config, seed=3)
    result = evaluate(model, stream)

    contexts = np.r_[stream.end_token, stream.ids[:-1]].astype(int)
    losses = []
    for start in range(0, stream.ids.size, 32):  # a slow twin: one window at a time
        part = slice(start, start + 32)
        losses.extend(-model.token_log_probs(contexts[part], stream.ids[part].astype(int))[0])
    ends = [0, *(np.flatnonzero(stream.ids == stream.end_token) + 1)]
    model_bits = [sum(losses[a:b]) / math.log(2) for a, b in pairwise(ends)]
    source_bits = [n / math.log(2) for n in nats]
    sizes = [len(text.encode()) for text in texts]
    gap = (sum(model_bits) - sum(source_bits)) / sum(sizes)
    residuals = [
        m - s - gap * size for m, s, size in zip(model_bits, source_bits, sizes, strict=True)
    ]
    error = math.sqrt(sum(r * r for r in residuals) / 29 / 30) / (sum(sizes) / 30)
    assert result.floor == pytest.approx(sum(source_bits) / sum(sizes))
    assert result.gap == pytest.approx(gap, rel=1e-5)
    assert result.gap_error == pytest.approx(error, rel=1e-4)
    assert result.bits_per_byte == pytest.approx(result.floor + result.gap)
    assert result.floor_loss == pytest.approx(sum(nats) / stream.ids.size)
    assert "bits a byte above the floor" in result.above_floor


def test_text_whose_source_is_unknown_has_no_floor(tokenizer):
    stream = encode_documents(["One day."], tokenizer)
    config = ModelConfig.preset("gpt-1k", vocab_size=tokenizer.n_vocab, seq_len=32)
    result = evaluate(build_model(config), stream)
    assert result.floor is result.gap is result.floor_loss is None
    assert result.above_floor == ""
    assert "gap" not in result.as_dict()


def small_demo(**options):
    return replace(
        demo_config(**options), preset="gpt-1k", seq_len=32, batch_size=2, steps=12, stories=200
    )


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory):
    return train(small_demo(out=str(tmp_path_factory.mktemp("demo") / "run")))


def test_the_demo_tells_baselines_floor_and_stories(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cli_demo, "demo_config", small_demo)
    monkeypatch.setattr(demo, "LONGEST", 20)
    cli_demo.demo(seed=0, out=str(tmp_path / "run"))
    shown = capsys.readouterr().out
    for word in ("uniform", "unigram", "bigram", "trigram", "this model", "the floor"):
        assert word in shown
    assert "0 of 20 stories" in shown
    assert "What to try next" in shown
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["gap"] > 0
    assert last["baselines"]["bigram"] < last["baselines"]["unigram"]


def test_the_same_seed_gives_the_same_file(demo_run, tmp_path):
    again = train(small_demo(out=str(tmp_path / "again")))
    assert again.folder.last.read_bytes() == demo_run.folder.last.read_bytes()


def test_a_share_counts_what_the_grammar_accepts():
    sound = next(iter(builtin_stories(1, validation=False)[0]))

    class Told:
        def __init__(self, texts):
            self.texts = texts

        def generate(self, *, seed, **_options):
            return self.texts[seed]

    check = check_stories(Told([sound, sound.replace(".", "!", 1), sound + " "]), samples=3)
    assert check == StoryCheck([sound, sound.replace(".", "!", 1), sound], [True, False, True])
    assert check.share == "2 of 3"


def test_the_command_line_prints_the_entropy(phi_train):
    shown = phi_train("data", "entropy", "--stories", "200", "--json")
    figures = json.loads(shown.stdout)
    assert 0 < figures["bits_per_byte_error"] < figures["bits_per_byte"] < 1
    listed = phi_train("data", "list").stdout
    assert "builtin" in listed
    refused = phi_train("data", "entropy", "--stories", "1")
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr


def test_nats_a_token_count_the_end_token(phi_train, tokenizer, tmp_path):
    tokenizer.save(tmp_path / "t.json")
    shown = phi_train(
        "data", "entropy", "--stories", "50", "--tokenizer", str(tmp_path / "t.json"), "--json"
    )
    figures = json.loads(shown.stdout)
    stories = list(islice(StoryGrammar().stories(0), 50))
    tokens = sum(len(tokenizer.encode_ordinary(story.text)) + 1 for story in stories)
    assert figures["nats_per_token"] == pytest.approx(
        sum(-story.log_prob for story in stories) / tokens
    )


def test_eval_of_builtin_shows_the_gap(phi_train, demo_run):
    shown = phi_train("eval", str(demo_run.folder.last), "--data", "builtin", "--json")
    figures = json.loads(shown.stdout)
    assert figures["bits_per_byte"] == pytest.approx(figures["floor"] + figures["gap"])
