"""The schedules' values at their corners, to the step, and in between."""

from __future__ import annotations

import inspect
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi_optim import HyperparameterError, schedules

SHAPED = [schedules.linear, schedules.cosine, schedules.warmup_stable_decay]
ALL = [*SHAPED, schedules.constant]


@pytest.mark.parametrize("schedule", ALL)
def test_warm_up_is_a_line_that_reaches_one_at_its_last_update(schedule):
    values = [schedule(step, 1000, warmup_steps=4) for step in range(5)]
    assert values == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0], rel=1e-2)
    assert values[3] == 1.0  # update number 4, exactly


@pytest.mark.parametrize("schedule", ALL)
def test_without_warm_up_the_first_update_has_the_full_rate(schedule):
    assert schedule(0, 100) == 1.0
    assert schedule(0, 1) == 1.0


@pytest.mark.parametrize("schedule", SHAPED)
@pytest.mark.parametrize("final", [0.0, 0.02, 0.1, 1.0])
def test_the_last_update_has_the_final_rate_and_no_earlier_one(schedule, final):
    values = [schedule(step, 50, warmup_steps=5, final=final) for step in range(60)]
    assert values[49] == pytest.approx(final, abs=1e-15)
    assert values[50:] == [values[49]] * 10  # past the end nothing changes
    if final < 1:
        assert min(values[5:49]) > values[49]


def test_linear_corners():
    assert schedules.linear(10, 21, warmup_steps=0) == 0.5
    assert schedules.linear(10, 111, warmup_steps=10) == 1.0
    assert schedules.linear(11, 111, warmup_steps=10) == pytest.approx(0.99)
    assert schedules.linear(60, 111, warmup_steps=10, final=0.5) == 0.75


def test_cosine_corners():
    assert schedules.cosine(50, 101) == pytest.approx(0.5)
    assert schedules.cosine(25, 101) == pytest.approx((1 + 0.5**0.5) / 2)
    assert schedules.cosine(50, 101, final=0.2) == pytest.approx(0.6)


def test_stable_then_decay_corners():
    values = [schedules.warmup_stable_decay(s, 101, warmup_steps=10) for s in range(101)]
    assert values[9:62] == [1.0] * 53  # round(101 * 0.6) = 61
    assert values[62] == pytest.approx(1 - 1 / 39)
    assert values[100] == 0
    shares = [schedules.warmup_stable_decay(s, 100, decay_share=0) for s in range(100)]
    assert shares == [1.0] * 100
    line = [schedules.warmup_stable_decay(s, 101, decay_share=1) for s in (0, 50, 100)]
    assert line == [1, 0.5, 0]


def test_decay_never_starts_in_the_warm_up():
    values = [schedules.warmup_stable_decay(s, 20, warmup_steps=15) for s in range(20)]
    assert values[14] == 1.0
    assert values[19] == 0.0


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_its_range(share):
    with pytest.raises(HyperparameterError, match="decay_share is"):
        schedules.warmup_stable_decay(0, 100, decay_share=share)


@given(
    st.sampled_from(ALL),
    st.integers(0, 500),
    st.integers(1, 400),
    st.integers(0, 300),
)
def test_a_factor_is_between_zero_and_one(schedule, step, total, warmup_steps):
    assert 0 <= schedule(step, total, warmup_steps=warmup_steps) <= 1


@pytest.mark.parametrize("schedule", SHAPED)
def test_after_the_warm_up_it_never_rises(schedule):
    values = [schedule(step, 300, warmup_steps=30) for step in range(30, 300)]
    assert all(a >= b for a, b in pairwise(values))


@pytest.mark.parametrize("schedule", ALL)
def test_a_resumed_run_follows_the_same_curve(schedule):
    """Plain functions: any order of calls gives the same values."""
    assert inspect.isfunction(schedule)
    forward = [schedule(step, 80, warmup_steps=8) for step in range(80)]
    backward = [schedule(step, 80, warmup_steps=8) for step in reversed(range(80))]
    assert forward == backward[::-1]


def test_a_sequence_runs_each_piece_as_if_alone():
    both = schedules.sequence((schedules.linear, 1), (schedules.cosine, 3))
    first = [schedules.linear(step, 25) for step in range(25)]
    second = [schedules.cosine(step, 75) for step in range(75)]
    assert [both(step, 100) for step in range(100)] == first + second
    assert both(500, 100) == both(99, 100)


def test_a_sequence_may_hold_a_sequence():
    inner = schedules.sequence((schedules.constant, 1), (schedules.linear, 1))
    outer = schedules.sequence((inner, 1), (schedules.constant, 1))
    expected = [1.0] * 5 + [schedules.linear(step, 5) for step in range(5)] + [1.0] * 10
    assert [outer(step, 20) for step in range(20)] == expected


def test_piecewise_corners():
    schedule = schedules.piecewise((0.0, 0.0), (0.1, 1.0), (0.5, 1.0), (0.9, 0.2))
    values = [schedule(step, 101) for step in (0, 5, 10, 30, 50, 70, 90, 100, 200)]
    assert values == pytest.approx([0, 0.5, 1, 1, 1, 0.6, 0.2, 0.2, 0.2])
    assert schedules.piecewise((0.5, 0.3))(0, 10) == 0.3


@pytest.mark.parametrize("shares", [(), (0,), (1, -1), (float("nan"),), (float("inf"),)])
def test_shares_of_a_sequence_are_above_zero(shares):
    with pytest.raises(HyperparameterError, match="each must be above 0"):
        schedules.sequence(*((schedules.constant, share) for share in shares))


@pytest.mark.parametrize("at", [(), (0.5, 0.5), (0.5, 0.2), (0.0, float("nan"))])
def test_corners_rise(at):
    with pytest.raises(HyperparameterError, match="after the one before"):
        schedules.piecewise(*((progress, 1.0) for progress in at))
