"""AdamW against a slow twin, element by element, in float64; resuming; what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from phi_optim import AdamW, HyperparameterError, NotFiniteError, PhiOptimError, StateError
from phi_optim.groups import is_matrix, rules_of
from phi_optim.segments import BLOCK, blocks, segments

SETTINGS = {"learning_rate": 3e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}


def _segments(parameters):
    return segments(parameters, rules_of(parameters, 0.1, is_matrix, ()))


def _copy(values):
    return {name: np.array(value) for name, value in values.items()}


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.0, 0.999), (0.9, 0.0)])
def test_equals_the_slow_twin_step_by_step(table, slow, shapes, weight_decay, betas):
    values = table(shapes, seed=1)
    settings = SETTINGS | {"weight_decay": weight_decay, "betas": betas}
    twin = slow.AdamW(values, **settings, decays=is_matrix)
    optimizer = AdamW(values, **settings)
    for step in range(12):
        gradients = table(shapes, seed=100 + step)
        rate, scale = 3e-2 / (1 + step), 1 / (1 + step % 3)
        optimizer.step(gradients, learning_rate=rate, scale=scale)
        twin.step(gradients, rate=rate, scale=scale)
        for name, value in values.items():
            np.testing.assert_allclose(value, twin.values[name], rtol=1e-12, atol=1e-14)


def test_float32_follows_the_twin_to_rounding(table, slow, shapes):
    values = table(shapes, np.float32, seed=1)
    twin = slow.AdamW(values, **SETTINGS, decays=is_matrix)
    optimizer = AdamW(values, **SETTINGS)
    for step in range(50):
        gradients = table(shapes, np.float32, seed=step)
        optimizer.step(gradients)
        twin.step(gradients)
    for name, value in values.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, twin.values[name], rtol=2e-5, atol=2e-5)


def test_own_learning_rate_is_the_default(table, slow, shapes):
    values = table(shapes, seed=1)
    twin = slow.AdamW(values, **SETTINGS, decays=is_matrix)
    optimizer = AdamW(values, **SETTINGS)
    gradients = table(shapes, seed=2)
    optimizer.step(gradients)
    twin.step(gradients)
    np.testing.assert_allclose(values["embedding"], twin.values["embedding"], rtol=1e-12)


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1])
def test_borders_of_blocks_do_not_show(size):
    """Whatever the length, every element gets the update that it would get alone."""
    value, gradient = np.linspace(-1, 1, size), np.linspace(2, -1, size)
    alone = {"a": value.copy(), "b": np.zeros(3)}
    optimizer = AdamW(alone, **SETTINGS)
    for _ in range(3):
        optimizer.step({"a": gradient, "b": np.ones(3)})
    m, v, expected = np.zeros(size), np.zeros(size), value.copy()
    for t in range(1, 4):
        m = 0.9 * m + 0.1 * gradient
        v = 0.95 * v + 0.05 * gradient**2
        expected -= 3e-2 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)
    np.testing.assert_allclose(alone["a"], expected, rtol=1e-11, atol=1e-13)


def test_blocks_cover_a_segment_once():
    for size in (1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK):
        (segment,) = _segments({"a": np.zeros(size)})
        slices = list(blocks(segment.start, segment.end))
        assert [s.start for s in slices[1:]] == [s.stop for s in slices[:-1]]
        assert (slices[0].start, slices[-1].stop) == (0, size)
        assert max(s.stop - s.start for s in slices) <= BLOCK


def test_neighbours_with_one_rule_are_one_stretch(slow):
    shapes = {"a": (2, 3), "b": (4, 4), "gain": (5,), "bias": (2,), "c": (1, 2)}
    found = _segments(slow.Flat(shapes, np.float64, gap=2))
    assert [(s.start, s.end, s.rule.weight_decay > 0) for s in found] == [
        (0, 24, True),  # a, its gap, b
        (26, 35, False),
        (37, 39, True),
    ]


def test_gaps_of_a_flat_table_stay_zero(slow, shapes):
    values, gradients = slow.Flat(shapes, np.float64), slow.Flat(shapes, np.float64)
    for name in shapes:
        values[name][...] = gradients[name][...] = 1
    optimizer = AdamW(values, **SETTINGS)
    for _ in range(3):
        optimizer.step(gradients)
    used = np.zeros(values.flat.size, bool)
    for start, end in values.ranges.values():
        used[start:end] = True
    assert (values.flat[~used] == 0).all()
    assert (values.flat[used] != 1).all()


def test_weight_decay_only_on_matrices(table, shapes):
    values = table(shapes)
    for name in shapes:
        values[name][...] = 1
    AdamW(values, learning_rate=0.5, weight_decay=0.1).step(table(shapes))
    for name, value in values.items():
        assert np.unique(value).tolist() == [0.95 if value.ndim == 2 else 1.0], name


def test_own_decay_rule(table, shapes):
    values = table(shapes)
    for name in shapes:
        values[name][...] = 1
    optimizer = AdamW(
        values, learning_rate=0.5, weight_decay=0.1, decay=lambda name, _: name == "bias"
    )
    optimizer.step(table(shapes))
    assert {name for name, value in values.items() if (value != 1).any()} == {"bias"}


def test_scale_equals_gradients_scaled_before(table, shapes):
    one, two = table(shapes, seed=1), table(shapes, seed=1)
    first, second = AdamW(one, **SETTINGS), AdamW(two, **SETTINGS)
    for step in range(5):
        gradients = table(shapes, seed=10 + step)
        first.step(gradients, scale=0.125)
        for name in shapes:
            gradients[name][...] *= 0.125
        second.step(gradients)
    for name in shapes:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-12)


def test_the_gradients_are_left_alone(table, shapes):
    gradients = table(shapes, seed=3)
    before = _copy(gradients)
    AdamW(table(shapes, seed=1)).step(gradients, scale=0.5)
    for name in shapes:
        assert np.array_equal(gradients[name], before[name])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loaded_state_goes_on_bit_for_bit(table, shapes, dtype):
    values = table(shapes, dtype, seed=1)
    optimizer = AdamW(values, **SETTINGS)
    for step in range(4):
        optimizer.step(table(shapes, dtype, seed=step))
    saved = {name: array.copy() for name, array in optimizer.state().items()}
    middle = _copy(values)
    for step in range(4, 9):
        optimizer.step(table(shapes, dtype, seed=step))

    resumed_values = table(shapes, dtype)
    for name in shapes:
        resumed_values[name][...] = middle[name]
    resumed = AdamW(resumed_values, **SETTINGS)
    resumed.load_state(saved)
    assert resumed.steps == 4
    for step in range(4, 9):
        resumed.step(table(shapes, dtype, seed=step))
    for name in shapes:
        assert values[name].tobytes() == resumed_values[name].tobytes()
    for name, array in optimizer.state().items():
        assert array.tobytes() == resumed.state()[name].tobytes()


def test_a_state_is_copied_in(table, shapes):
    optimizer = AdamW(table(shapes, seed=1))
    optimizer.step(table(shapes, seed=2))
    saved = {name: array.copy() for name, array in optimizer.state().items()}
    for array in saved.values():
        array.flags.writeable = False  # as a mapped file is
    other = AdamW(table(shapes, seed=1))
    other.load_state(saved)
    other.step(table(shapes, seed=3))


def _without_one(state):
    state.pop(next(name for name in state if name.startswith("mean/")))


def _one_more(state):
    state["mean/other"] = np.zeros(3)


def _wrong_shape(state):
    name = next(name for name in state if name.startswith("square/"))
    state[name] = np.zeros(state[name].size + 1)


def _wrong_dtype(state):
    name = next(name for name in state if name.startswith("square/"))
    state[name] = state[name].astype(np.float32)


@pytest.mark.parametrize(
    "damage", [_without_one, _one_more, _wrong_shape, _wrong_dtype, dict.clear]
)
def test_a_wrong_state_is_refused_and_nothing_changes(table, shapes, damage):
    optimizer = AdamW(table(shapes, seed=1))
    optimizer.step(table(shapes, seed=2))
    before = {name: array.copy() for name, array in optimizer.state().items()}
    wrong = _copy(before)
    damage(wrong)
    with pytest.raises(StateError, match=r"saved for other parameters or .+: '.+' does not fit"):
        optimizer.load_state(wrong)
    for name, array in optimizer.state().items():
        assert np.array_equal(array, before[name])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learning_rate": -1e-3}, "learning_rate is -0.001; it must be 0 or more"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"learning_rate": float("inf")}, "learning_rate is inf; it must be 0 or more and finite"),
        ({"betas": (1.0, 0.95)}, r"betas\[0\] is 1.0; it must be 0 or more and below 1"),
        ({"betas": (0.9, -0.1)}, r"betas\[1\] is -0.1"),
        ({"eps": -1e-8}, "eps is -1e-08"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
    ],
)
def test_values_out_of_range(settings, words):
    with pytest.raises(HyperparameterError, match=words):
        AdamW({"w": np.ones(3)}, **settings)


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -0.1])
def test_a_senseless_rate_changes_nothing(rate):
    values = {"w": np.ones(3)}
    optimizer = AdamW(values)
    with pytest.raises(HyperparameterError, match="learning_rate"):
        optimizer.step({"w": np.ones(3)}, learning_rate=rate)
    assert optimizer.steps == 0
    assert values["w"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -float("inf")])
def test_a_scale_that_is_not_finite_never_enters_the_moments(table, shapes, scale):
    values = table(shapes, seed=1)
    optimizer = AdamW(values)
    optimizer.step(table(shapes, seed=2))
    values_before = _copy(values)
    state_before = _copy(optimizer.state())
    with pytest.raises(NotFiniteError, match="lower the learning rate"):
        optimizer.step(table(shapes, seed=3), scale=scale)
    assert optimizer.steps == 1
    for name in shapes:
        assert np.array_equal(values[name], values_before[name])
    for name, array in optimizer.state().items():
        assert np.array_equal(array, state_before[name])


def _missing(gradients):
    gradients.pop("b")


def _too_long(gradients):
    gradients["b"] = np.zeros(5)


def _too_short(gradients):
    gradients["b"] = np.zeros(1)


def _unknown(gradients):
    gradients["c"] = np.zeros(3)


@pytest.mark.parametrize("damage", [_missing, _too_long, _too_short, _unknown])
def test_gradients_of_other_parameters_are_refused_and_nothing_changes(damage):
    values = {"a": np.ones((2, 2)), "b": np.ones(3)}
    optimizer = AdamW(values)
    gradients = {"a": np.ones((2, 2)), "b": np.ones(3)}
    damage(gradients)
    with pytest.raises(StateError, match=r"do not fit the parameters: [bc] has"):
        optimizer.step(gradients)
    assert optimizer.steps == 0
    assert (values["a"] == 1).all()


def test_an_array_that_is_no_vector_without_a_copy_is_refused():
    with pytest.raises(StateError, match="w is not C-contiguous"):
        AdamW({"w": np.ones((4, 3)).T})


def test_errors_are_of_one_family():
    for error in (HyperparameterError, NotFiniteError, StateError):
        assert issubclass(error, PhiOptimError)


@pytest.mark.parametrize("shares", [1, 2, 3, 7])
def test_shares_together_are_one_step(table, shares):
    """Workers in any order; also more of them than there is work."""
    shapes = {"a": (300, 40), "gain": (17,), "b": (3, 5), "bias": (1,)}
    whole, split = table(shapes, seed=1), table(shapes, seed=1)
    one, parts = AdamW(whole, **SETTINGS), AdamW(split, **SETTINGS)
    for step in range(1, 4):
        gradients = table(shapes, seed=10 + step)
        one.step(gradients, scale=0.5)
        for share in reversed(range(shares)):
            parts.update(
                gradients, step=step, learning_rate=3e-2, scale=0.5, share=share, shares=shares
            )
        parts.steps = step
    for name in shapes:
        assert whole[name].tobytes() == split[name].tobytes()
    for name, array in one.state().items():
        assert array.tobytes() == parts.state()[name].tobytes()


def test_moments_live_where_the_caller_wants(table, shapes):
    made = []

    def allocate(size, dtype):
        made.append(np.zeros(size, dtype))
        return made[-1]

    optimizer = AdamW(table(shapes, seed=1), allocate=allocate)
    optimizer.step(table(shapes, seed=2))
    moments = [array for name, array in optimizer.state().items() if name != "steps"]
    assert len(made) == len(moments)
    assert all(any(np.shares_memory(array, own) for own in made) for array in moments)
