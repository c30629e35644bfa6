"""Samples while training: those of the weights as they are, the same whoever asks."""

from __future__ import annotations

import json

from phi_infer import load
from phi_train import train


def _samples(result):
    lines = [json.loads(line) for line in result.folder.metrics.read_text().splitlines()]
    return {line["step"]: (line["prompt"], line["sample"]) for line in lines if "sample" in line}


def test_a_sample_is_what_the_saved_weights_would_write(settings):
    result = train(settings(sample_every=8, prompt="the bear", sample_tokens=30, keep=9))
    samples = _samples(result)
    assert list(samples) == [8, 16, 24]
    for step, (prompt, text) in samples.items():
        assert prompt == "the bear"
        generator = load(result.folder.checkpoint(step))
        assert text == generator.generate("the bear", max_tokens=30, temperature=0.8, seed=0)
    assert len(set(samples.values())) > 1


def test_the_average_is_what_writes(settings):
    result = train(settings(sample_every=8, ema=0.9, optimizer="adamw", sample_tokens=20))
    generator = load(result.folder.last)
    assert _samples(result)[24][1] == generator.generate("", max_tokens=20, temperature=0.8, seed=0)


def test_none_unless_asked_for(settings):
    assert _samples(train(settings(sample_every=0))) == {}
