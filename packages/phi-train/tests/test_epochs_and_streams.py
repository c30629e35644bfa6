"""Epochs without repeats, rows that go on, borders of documents; slow twins and statistics."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from phi_train import ConfigError, DataError
from phi_train.batches import (
    KINDS,
    RandomWindows,
    SequentialStreams,
    ShuffledEpochs,
    document_numbers,
    make_batches,
)
from phi_train.permutation import permuted
from phi_train.tokens import TokenStream

END = 60_000


def numbered(size, ends=()):
    """Ids are their places, but where documents end."""
    ids = np.arange(size, dtype=np.uint16)
    ids[list(ends)] = END
    return TokenStream(ids, END, 1, size)


def starts_of(batches, step):
    return batches(step)[0][:, 0].tolist()


# permutations


@given(st.integers(1, 400), st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_a_permutation_has_each_number_once(n, seed, number):
    found = permuted(np.arange(n), n, seed=seed, number=number)
    assert sorted(found.tolist()) == list(range(n))


def test_a_place_does_not_depend_on_the_others():
    whole = permuted(np.arange(1000), 1000, seed=3, number=5)
    alone = [int(permuted(np.array([i]), 1000, seed=3, number=5)[0]) for i in range(1000)]
    assert whole.tolist() == alone
    mixed_numbers = permuted(np.full(8, 7), 1000, seed=3, number=np.arange(8))
    each = [int(permuted(np.array([7]), 1000, seed=3, number=i)[0]) for i in range(8)]
    assert mixed_numbers.tolist() == each


@pytest.mark.parametrize("n", [5, 24, 101])
def test_every_number_is_as_likely_everywhere(n):
    """Chi squared of (place, number) over many permutations, and of neighbours' differences."""
    times = 2000
    table, steps = np.zeros((n, n)), np.zeros(n)
    for number in range(times):
        order = permuted(np.arange(n), n, seed=1, number=number)
        table[np.arange(n), order] += 1
        np.add.at(steps, np.diff(order) % n, 1)
    chi = ((table - times / n) ** 2 / (times / n)).sum()
    freedom = (n - 1) ** 2
    assert abs(chi - freedom) < 6 * np.sqrt(2 * freedom)
    expected = times  # each of the n - 1 differences
    chi = ((steps[1:] - expected) ** 2 / expected).sum()
    assert abs(chi - (n - 2)) < 8 * np.sqrt(2 * (n - 2))


def test_a_permutation_of_very_many_costs_nothing():
    n = 10**15 + 37
    found = permuted(np.arange(1000), n, seed=0, number=0)
    assert len(set(found.tolist())) == 1000
    assert found.min() >= 0
    assert n * 0.9 < found.max() < n


# epochs


@hypothesis_settings(deadline=None, max_examples=30)
@given(
    size=st.integers(9, 400),
    length=st.integers(1, 8),
    batch_size=st.integers(1, 13),
    seed=st.integers(0, 2**64 - 1),
)
def test_an_epoch_has_every_window_once(size, length, batch_size, seed):
    batches = ShuffledEpochs(numbered(size), batch_size=batch_size, seq_len=length, seed=seed)
    n = batches.windows
    assert n == (size - 1) // length
    steps = -(-3 * n // batch_size)
    starts = [start for step in range(steps) for start in starts_of(batches, step)]
    orders = [starts[epoch * n : (epoch + 1) * n] for epoch in range(3)]
    for order in orders:
        shift = min(order)
        assert sorted(order) == [shift + i * length for i in range(n)]
        assert max(order) + length < size
    if n > 12:
        plain = [[(s - min(o)) // length for s in o] for o in orders]
        assert plain[0] != plain[1] != plain[2]
        assert plain[0] != sorted(plain[0])


def test_the_leftover_differs_between_epochs():
    batches = ShuffledEpochs(numbered(60), batch_size=5, seq_len=10)  # 5 windows, 9 to spare
    assert {min(starts_of(batches, epoch)) for epoch in range(300)} == set(range(10))


# streams


@hypothesis_settings(deadline=None, max_examples=30)
@given(
    size=st.integers(40, 400),
    length=st.integers(1, 6),
    batch_size=st.integers(1, 6),
    seed=st.integers(0, 2**64 - 1),
)
def test_rows_go_on_where_they_ended(size, length, batch_size, seed):
    batches = SequentialStreams(numbered(size), batch_size=batch_size, seq_len=length, seed=seed)
    n = batches.steps_an_epoch
    for epoch in range(3):
        seen = []
        for step in range(epoch * n, (epoch + 1) * n):
            ids, _ = batches(step)
            seen += ids.ravel().tolist()
            begins = step % n == 0
            assert batches.resets(step)[:, 0].all() == begins
            if not begins:
                assert (ids[:, 0] == batches(step - 1)[1][:, -1]).all()
        assert sorted(seen) == list(range(min(seen), min(seen) + len(seen)))
        assert len(seen) == batch_size * n * length


def test_rows_change_lanes_after_an_epoch():
    batches = SequentialStreams(numbered(101), batch_size=5, seq_len=4)
    n = batches.steps_an_epoch
    orders = {tuple(np.argsort(starts_of(batches, epoch * n))) for epoch in range(20)}
    assert len(orders) > 10


def test_too_short_for_so_many_rows():
    SequentialStreams(numbered(33), batch_size=4, seq_len=8)
    with pytest.raises(DataError, match="32 tokens, fewer than a window of 8 for each of 4 rows"):
        SequentialStreams(numbered(32), batch_size=4, seq_len=8)


# borders


@pytest.mark.parametrize("kind", list(KINDS))
def test_resets_are_where_documents_begin(kind):
    """A slow twin with loops: after every end token, and where a row does not go on."""
    ends = [3, 4, 11, 30, 31, 57, 90]
    size = 98
    batches = make_batches(kind, numbered(size, ends), batch_size=3, seq_len=8, seed=4)
    places = make_batches(kind, numbered(size), batch_size=3, seq_len=8, seed=4)
    previous = None
    for step in range(40):
        at = places(step)[0]
        expected = np.zeros((3, 8), bool)
        for row in range(3):
            for column in range(8):
                goes_on = column > 0 or (
                    kind == "streams"
                    and previous is not None
                    and previous[row] + 1 == at[row, 0]
                    and step % places.steps_an_epoch
                )
                expected[row, column] = not goes_on or at[row, column] - 1 in ends
        previous = at[:, -1]
        assert batches.resets(step).tolist() == expected.tolist()


def test_numbers_of_documents():
    resets = np.array([[1, 0, 0, 1, 1, 0], [0, 0, 1, 0, 0, 0]], bool)
    assert document_numbers(resets).tolist() == [[0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 1, 1]]


# all kinds


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_function_of_seed_and_step(kind):
    one, again = (
        make_batches(kind, numbered(500), batch_size=4, seq_len=8, seed=1) for _ in range(2)
    )
    forward = [one(step)[0].tolist() for step in range(30)]
    assert forward == [again(step)[0].tolist() for step in reversed(range(30))][::-1]
    other = make_batches(kind, numbered(500), batch_size=4, seq_len=8, seed=2)
    assert forward != [other(step)[0].tolist() for step in range(30)]
    ids, targets = one(7)
    assert ids.shape == targets.shape == (4, 8)
    assert ids.dtype == targets.dtype == np.intp
    assert (targets == ids + 1).all()
    assert one(10**12)[0].shape == (4, 8)
    assert (one.batch_size, one.seed) == (4, 1)


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_largest_seeds_and_the_shortest_texts(kind):
    for seed in (2**63, 2**64 - 1):
        batches = make_batches(kind, numbered(4), batch_size=1, seq_len=3, seed=seed)
        assert batches(5)[1].tolist() == [[1, 2, 3]]
        assert batches.resets(0).tolist() == [[True, False, False]]
    with pytest.raises(DataError, match="3 tokens, fewer than one window of 3"):
        make_batches(kind, numbered(3), batch_size=1, seq_len=3)


def test_a_memory_mapped_stream_is_read_where_it_is_asked_for(tmp_path):
    """A sparse file of 8 GB: a batch of any kind costs no more than of a small one."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(8 << 30)
    stream = TokenStream(np.memmap(path, np.uint16, mode="r"), END, 1, 1)
    for kind in KINDS:
        batches = make_batches(kind, stream, batch_size=8, seq_len=16)
        for step in (0, 10**6, 10**12):
            ids, _ = batches(step)
            assert not ids.any()


def test_the_random_windows_of_earlier_versions():
    """Bit for bit: a run that was begun with them can be resumed."""
    rng = np.random.Generator(np.random.Philox(key=np.array([9, 4], np.uint64)))
    starts = rng.integers(0, 200 - 7, 5)
    batches = RandomWindows(numbered(200), batch_size=5, seq_len=7, seed=9)
    assert starts_of(batches, 4) == starts.tolist()


def test_an_unknown_kind():
    with pytest.raises(ConfigError, match="batches are 'other'; there are random, epochs, streams"):
        make_batches("other", numbered(100), batch_size=1, seq_len=3)
