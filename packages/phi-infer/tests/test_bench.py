"""The bench measures a file that generates; its rates are those of a clock it is given."""

from __future__ import annotations

import time

import numpy as np
import pytest

from phi_infer import SamplingError
from phi_infer import bench as module
from phi_infer.bench import bench
from phi_infer.gpt_step import GPTStep
from phi_model import save_checkpoint


@pytest.mark.parametrize("kind", ["gpt", "rwkv7"])
def test_every_figure_is_there(make_model, tokenizer, tmp_path, kind):
    save_checkpoint(tmp_path / "a.phi", make_model(kind=kind), tokenizer=tokenizer.to_bytes())
    speed = bench(tmp_path / "a.phi", tokens=4, prompt_tokens=5, batch=2, rounds=1)
    assert speed.load_ms > 0
    assert speed.first_token_ms > 0
    assert speed.private_mb is None or 1 < speed.private_mb < 1000
    assert (speed.tokens, speed.prompt_tokens, speed.batch) == (4, 5, 2)


def test_a_slow_step_shows_in_decoding_alone(checkpoint, monkeypatch):
    plain = GPTStep.__call__

    def slow(self, token):
        time.sleep(0.02)
        return plain(self, token)

    monkeypatch.setattr(GPTStep, "__call__", slow)
    speed = bench(checkpoint, tokens=5, prompt_tokens=10, batch=2, rounds=1)
    assert speed.decode_tokens_per_second < 50 < speed.prefill_tokens_per_second


def test_the_rate_is_tokens_over_the_median(monkeypatch):
    ticks = iter(np.cumsum([0, 1, 1, 2, 1, 30]).tolist())
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(ticks))
    assert module._rate(lambda: None, 10, rounds=3) == 5


def test_numbers_that_make_no_sense(checkpoint):
    with pytest.raises(SamplingError, match="rounds is 0"):
        bench(checkpoint, rounds=0)
