"""The average of weights against its definition; swapping, resuming, shares."""

from __future__ import annotations

import numpy as np
import pytest

from phi_optim import Ema, HyperparameterError, StateError
from phi_optim.segments import BLOCK


def _bits(arrays):
    return {name: np.array(array).tobytes() for name, array in arrays.items()}


def _follow(values, average, table, shapes, steps):
    """Changes the values `steps` times; what they were after each."""
    seen = []
    for step in range(steps):
        for name, value in table(shapes, seed=50 + step).items():
            values[name][...] = value
        average.step()
        seen.append({name: np.array(value) for name, value in values.items()})
    return seen


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999])
def test_with_bias_correction_it_is_the_weighted_mean(table, shapes, decay):
    values = table(shapes, seed=1)
    average = Ema(values, decay=decay)
    seen = _follow(values, average, table, shapes, 7)
    weights = decay ** np.arange(6, -1, -1.0)
    with average.swapped():
        for name, value in values.items():
            mean = sum(w * s[name] for w, s in zip(weights, seen, strict=True)) / weights.sum()
            np.testing.assert_allclose(value, mean, rtol=1e-10, atol=1e-12)


def test_without_it_starts_at_the_parameters(table, shapes):
    values = table(shapes, seed=1)
    expected = {name: np.array(value) for name, value in values.items()}
    average = Ema(values, decay=0.9, bias_correction=False)
    for now in _follow(values, average, table, shapes, 5):
        expected = {name: 0.9 * expected[name] + 0.1 * now[name] for name in shapes}
    average.swap()
    for name, value in values.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-12, atol=1e-13)


def test_swapping_twice_changes_no_bit(table):
    shapes = {"w": (BLOCK + 3,), "gain": (5,)}
    values = table(shapes, np.float32, seed=1)
    average = Ema(values)
    _follow(values, average, table, shapes, 3)
    before = _bits(values), _bits(average.state())
    average.swap()
    assert _bits(values) != before[0]
    for call in (average.step, average.state, lambda: average.update(step=4)):
        with pytest.raises(StateError, match=r"call swap\(\) before"):
            call()
    assert average.steps == 3
    average.swap()
    assert (_bits(values), _bits(average.state())) == before


@pytest.mark.parametrize("shares", [2, 5])
def test_shares_together_are_one_step(table, shapes, shares):
    values = table(shapes, np.float32, seed=1)
    one, parts = Ema(values), Ema(values)
    for step in range(1, 4):
        for name, value in table(shapes, np.float32, seed=step).items():
            values[name][...] = value
        one.step()
        for share in reversed(range(shares)):
            parts.update(step=step, share=share, shares=shares)
        parts.steps = step
    assert _bits(one.state()) == _bits(parts.state())


def test_resuming(table, shapes):
    values = table(shapes, seed=1)
    one = Ema(values)
    _follow(values, one, table, shapes, 3)
    two = Ema(values)
    two.load_state({name: array.copy() for name, array in one.state().items()})
    one.step()
    two.step()
    assert _bits(one.state()) == _bits(two.state())
    with pytest.raises(StateError, match="average of weights state"):
        two.load_state({"steps": np.zeros(1, np.int64)})


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_a_decay_out_of_range(decay):
    with pytest.raises(HyperparameterError, match=f"decay is {decay}"):
        Ema({"w": np.ones(2)}, decay=decay)
