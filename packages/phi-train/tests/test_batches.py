"""A batch is a function of (seed, step); targets are the ids one place on."""

from __future__ import annotations

import numpy as np
import pytest

from phi_train import DataError
from phi_train.batches import RandomWindows


@pytest.fixture
def numbered(stream):
    """A stream whose ids are their places, so that a window shows where it was taken."""
    return stream(np.arange(200), 1000)


def test_targets_are_ids_one_place_on(numbered):
    ids, targets = RandomWindows(numbered, batch_size=5, seq_len=7)(3)
    assert ids.shape == targets.shape == (5, 7)
    assert (targets == ids + 1).all()
    assert (np.diff(ids, axis=1) == 1).all()
    assert ids.dtype == np.intp


def test_a_function_of_seed_and_step(numbered):
    one = RandomWindows(numbered, batch_size=4, seq_len=8, seed=1)
    again = RandomWindows(numbered, batch_size=4, seq_len=8, seed=1)
    forward = [one(step)[0].tolist() for step in range(20)]
    backward = [again(step)[0].tolist() for step in reversed(range(20))][::-1]
    assert forward == backward
    assert len({str(batch) for batch in forward}) == 20
    other = RandomWindows(numbered, batch_size=4, seq_len=8, seed=2)
    assert other(0)[0].tolist() != forward[0]


@pytest.mark.parametrize("seed", [2**63 - 1, 2**63, 2**64 - 2])
def test_large_seeds_differ_too(numbered, seed):
    one, two = (
        RandomWindows(numbered, batch_size=8, seq_len=4, seed=s)(0)[0] for s in (seed, seed + 1)
    )
    assert one.tolist() != two.tolist()


def test_every_place_can_be_drawn(stream):
    batches = RandomWindows(stream(np.arange(12), 20), batch_size=50, seq_len=4)
    starts = {int(row[0]) for step in range(10) for row in batches(step)[0]}
    assert starts == set(range(8))  # 12 - 4: the last target is the last token
    assert max(int(batches(step)[1].max()) for step in range(10)) == 11


def test_one_window_and_its_next_token_are_enough(stream):
    ids, targets = RandomWindows(stream([5, 6, 7, 8], 20), batch_size=1, seq_len=3)(0)
    assert (ids.tolist(), targets.tolist()) == ([[5, 6, 7]], [[6, 7, 8]])


def test_a_text_that_is_too_short(stream):
    with pytest.raises(
        DataError, match=r"has 20 tokens, fewer than one window of 20 .*--seq-len 10"
    ):
        RandomWindows(stream(np.arange(20), 30), batch_size=1, seq_len=20)
