"""What every optimiser promises: shares, resuming, refusals, groups, the common names."""

from __future__ import annotations

import mmap
import os

import numpy as np
import pytest

from phi_optim import (
    OPTIMIZERS,
    Group,
    HyperparameterError,
    NotFiniteError,
    StateError,
    make_optimizer,
)

SHAPES = {
    "embedding": (30, 40),
    "gain": (17,),
    "square": (16, 16),
    "wide": (8, 40),
    "tall": (48, 16),
    "bias": (1,),
}
MEMORY = {"adamw": 2, "lion": 1, "schedule-free": 2, "sgd": 1}


def _bits(arrays):
    return {name: np.array(array).tobytes() for name, array in arrays.items()}


@pytest.fixture(params=OPTIMIZERS)
def name(request):
    return request.param


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shares", [1, 2, 3, 7])
def test_shares_together_are_one_step(table, name, shares, dtype):
    """Workers in any order; also more of them than there is work for."""
    whole, split = table(SHAPES, dtype, seed=1), table(SHAPES, dtype, seed=1)
    one, parts = make_optimizer(name, whole), make_optimizer(name, split)
    for step in range(1, 5):
        gradients = table(SHAPES, dtype, seed=10 + step)
        one.step(gradients, learning_rate=0.01 * step, scale=0.5)
        for share in reversed(range(shares)):
            parts.update(
                gradients, step=step, learning_rate=0.01 * step, scale=0.5,
                share=share, shares=shares,
            )  # fmt: skip
        parts.steps = step
    assert _bits(whole) == _bits(split)
    assert _bits(one.state()) == _bits(parts.state())


def test_gradients_may_lie_elsewhere_at_every_step(table, slow, name):
    """What is kept of one flat buffer of gradients is not used for another."""
    values, flat_values = table(SHAPES, seed=1), slow.Flat(SHAPES, np.float64)
    for key in SHAPES:
        flat_values[key][...] = values[key]
    one, two = make_optimizer(name, values), make_optimizer(name, flat_values)
    buffers = [slow.Flat(SHAPES, np.float64) for _ in range(2)]
    for step, place in enumerate([0, 0, 1, 0, 1, 1]):
        gradients = table(SHAPES, seed=10 + step)
        for key in SHAPES:
            buffers[place][key][...] = gradients[key]
        one.step(gradients, learning_rate=0.01)
        two.step(buffers[place], learning_rate=0.01)
    assert _bits(values) == _bits(flat_values)


@pytest.mark.parametrize("view", ["train", "eval"])
def test_a_resumed_run_is_the_same_run(table, name, view):
    """Whichever view the parameters were saved in."""
    straight, stopped = table(SHAPES, np.float32, seed=1), table(SHAPES, np.float32, seed=1)
    one, two = make_optimizer(name, straight), make_optimizer(name, stopped)
    for step in range(6):
        gradients = table(SHAPES, np.float32, seed=step)
        one.step(gradients, learning_rate=1e-2 / (1 + step))
        if step == 3:
            getattr(two, view)()
            saved = {key: np.array(array) for key, array in two.state().items()}
            values, stopped = stopped, table(SHAPES, np.float32)
            for key in SHAPES:
                stopped[key][...] = values[key]
            two = make_optimizer(name, stopped)
            two.load_state(saved)
        two.step(gradients, learning_rate=1e-2 / (1 + step))
    assert two.steps == 6
    assert _bits(straight) == _bits(stopped)
    assert _bits(one.state()) == _bits(two.state())


def test_looking_at_the_other_view_changes_no_bit(table, name):
    looked, other = table(SHAPES, np.float32, seed=1), table(SHAPES, np.float32, seed=1)
    one, two = make_optimizer(name, looked), make_optimizer(name, other)
    one.eval()
    assert _bits(looked) == _bits(other)  # before the first step there is one view
    one.train()
    for step in range(4):
        gradients = table(SHAPES, np.float32, seed=step)
        one.step(gradients)
        two.step(gradients)
        one.eval()
        one.eval()
        differs = _bits(looked) != _bits(other)
        assert differs == (name == "schedule-free" and step > 0)
        one.train()
        one.train()
    assert _bits(looked) == _bits(other)
    assert _bits(one.state()) == _bits(two.state())


def test_schedule_free_refuses_to_step_from_the_wrong_view(table):
    values = table(SHAPES, seed=1)
    optimizer = make_optimizer("schedule-free", values)
    optimizer.step(table(SHAPES, seed=2))
    optimizer.eval()
    before = _bits(values)
    for call in (
        lambda: optimizer.step(table(SHAPES, seed=3)),
        lambda: optimizer.update(table(SHAPES, seed=3), step=2, learning_rate=0.1),
    ):
        with pytest.raises(StateError, match=r"call train\(\) before a step"):
            call()
    assert _bits(values) == before
    assert optimizer.steps == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_is_named_and_nothing_changes(table, name, bad):
    values = table(SHAPES, np.float32, seed=1)
    optimizer = make_optimizer(name, values)
    optimizer.step(table(SHAPES, np.float32, seed=2))
    before = _bits(values), _bits(optimizer.state())
    gradients = table(SHAPES, np.float32, seed=3)
    gradients["tall"][47, 15] = bad
    with pytest.raises(NotFiniteError, match="the gradient of tall holds a NaN or an infinity"):
        optimizer.step(gradients)
    for scale in (np.nan, np.inf):
        with pytest.raises(NotFiniteError, match="scale is"):
            optimizer.update(gradients, step=2, learning_rate=0.1, scale=scale)
    assert (_bits(values), _bits(optimizer.state())) == before


def test_huge_gradients_are_finite_all_the_same(name):
    """Their squares leave float32's range, in the check and in nothing else of this step."""
    gradients = {"w": np.full((4, 4), 1e19, np.float32)}
    values = {"w": np.ones((4, 4), np.float32)}
    make_optimizer(name, values, learning_rate=1e-3).step(gradients, scale=1e-19)
    assert np.isfinite(values["w"]).all()
    assert (values["w"] != 1).all()


def test_gaps_of_a_flat_table_stay_zero(slow, name):
    values, gradients = slow.Flat(SHAPES, np.float32), slow.Flat(SHAPES, np.float32)
    for key in SHAPES:
        values[key][...] = gradients[key][...] = 1
    optimizer = make_optimizer(name, values)
    for _ in range(3):
        optimizer.step(gradients)
    used = np.zeros(values.flat.size, bool)
    for start, end in values.ranges.values():
        used[start:end] = True
    assert (values.flat[~used] == 0).all()
    assert (values.flat[used] != 1).all()


def test_a_rate_of_zero_moves_nothing(table, name):
    values = table(SHAPES, seed=1)
    before = _bits(values)
    make_optimizer(name, values, weight_decay=0.1).step(table(SHAPES, seed=2), learning_rate=0.0)
    assert _bits(values) == before


def test_groups_change_decay_and_rate(table, name):
    """Without a gradient only the decay moves anything: by 1 - rate * decay."""
    values = table(SHAPES)
    for key in SHAPES:
        values[key][...] = 1
    groups = [Group("embed*", weight_decay=0.0), Group("t*", weight_decay=0.5, rate=0.5)]
    groups += [Group("tall", weight_decay=7.0), Group("wide", rate=2.0), Group("gain", 0.2)]
    optimizer = make_optimizer(name, values, weight_decay=0.1, groups=groups)
    optimizer.step(table(SHAPES), learning_rate=0.1)
    optimizer.eval()
    expected = {"embedding": 1, "gain": 0.98, "square": 0.99, "wide": 0.98, "tall": 0.975}
    for key, value in (expected | {"bias": 1}).items():
        np.testing.assert_allclose(values[key], value, rtol=1e-12, err_msg=key)


@pytest.mark.parametrize("group", ["square", "bias"])
def test_a_groups_rate_is_another_learning_rate(table, name, group):
    slow_group, slow_all = table(SHAPES, seed=1), table(SHAPES, seed=1)
    grouped = make_optimizer(name, slow_group, learning_rate=0.1, groups=[Group(group, rate=0.25)])
    plain = make_optimizer(name, slow_all, learning_rate=0.025)
    for step in range(3):
        grouped.step(table(SHAPES, seed=step))
        plain.step(table(SHAPES, seed=step))
    for key in SHAPES:
        same = np.allclose(slow_group[key], slow_all[key], rtol=1e-12, atol=1e-13)
        assert same == (key == group)


def test_what_callers_may_ask(table, name):
    values = table(SHAPES)
    optimizer = make_optimizer(name, values)
    assert optimizer.name == name
    assert optimizer.schedule == ("constant" if name == "schedule-free" else "warmup-stable-decay")
    assert (optimizer.steps, optimizer.learning_rate > 0) == (0, True)
    if name != "muon":
        assert optimizer.state_floats_per_parameter == MEMORY[name]
    else:
        assert 1 < optimizer.state_floats_per_parameter < 1.6  # the embedding is large here


def test_muon_needs_one_float_for_hidden_matrices():
    assert make_optimizer("muon", {"w": np.ones((8, 8))}).state_floats_per_parameter == 1
    assert make_optimizer("muon", {"embedding": np.ones((8, 8))}).state_floats_per_parameter == 2


def test_state_lives_where_the_caller_wants(table, name):
    made = []

    def allocate(size, dtype):
        made.append(np.zeros(size, dtype))
        return made[-1]

    values = table(SHAPES, seed=1)
    optimizer = make_optimizer(name, values, allocate=allocate)
    optimizer.step(table(SHAPES, seed=2))
    for key, array in optimizer.state().items():
        assert (
            key == "steps"
            or any(np.shares_memory(array, own) for own in made)
            or key.startswith("training/")
        ), key


def test_a_state_of_another_optimiser_is_refused(name):
    other = OPTIMIZERS[OPTIMIZERS.index(name) - 1]
    values = {"w": np.ones((4, 4))}
    state = make_optimizer(other, {"w": np.ones((4, 4))}).state()
    with pytest.raises(StateError, match=f"this {name} state .* does not fit"):
        make_optimizer(name, values).load_state(state)


OUT_OF_RANGE = [
    ("sgd", {"momentum": 1.0}, "momentum is 1.0; it must be 0 or more and below 1"),
    ("sgd", {"nesterov": True, "momentum": 0.0}, "nesterov looks ahead"),
    ("lion", {"betas": (1.0, 0.9)}, r"betas\[0\] is 1.0"),
    ("lion", {"betas": (0.9, -1.0)}, r"betas\[1\] is -1.0"),
    ("schedule-free", {"betas": (0.0, 0.9)}, r"betas\[0\] is 0; it must be above 0"),
    ("schedule-free", {"betas": (0.9, 1.0)}, r"betas\[1\] is 1.0"),
    ("schedule-free", {"warmup_steps": -1}, "warmup_steps is -1"),
    ("schedule-free", {"eps": -1.0}, "eps is -1.0"),
    ("muon", {"momentum": 1.5}, "momentum is 1.5"),
    ("muon", {"adjust": "none"}, "adjust is 'none'; there are match_rms_adamw, original"),
    ("muon", {"split": {"w": 3}}, "w has 4 rows, which cannot be split into 3 equal matrices"),
    ("muon", {"split": {"w": 0}}, "cannot be split into 0"),
    ("muon", {"newton_schulz_steps": 0}, "newton_schulz_steps is 0"),
    ("muon", {"betas": (0.9, 1.0)}, r"betas\[1\] is 1.0"),
    ("muon", {"matrix_rate": -1.0}, "matrix_rate is -1.0"),
]


@pytest.mark.parametrize(("name", "options", "words"), OUT_OF_RANGE)
def test_values_out_of_range(name, options, words):
    with pytest.raises(HyperparameterError, match=words):
        make_optimizer(name, {"w": np.ones((4, 4))}, **options)


@pytest.mark.parametrize("option", ["learning_rate", "weight_decay"])
@pytest.mark.parametrize("value", [-1e-3, np.nan, np.inf])
def test_rates_and_decays_out_of_range(name, option, value):
    with pytest.raises(HyperparameterError, match=f"{option} is {value}"):
        make_optimizer(name, {"w": np.ones((4, 4))}, **{option: value})


def test_mistakes_in_names():
    values = {"w": np.ones((4, 4))}
    with pytest.raises(HyperparameterError, match="no optimiser is called 'adam'; there are adamw"):
        make_optimizer("adam", values)
    with pytest.raises(HyperparameterError, match="lion has no option 'eps'; it takes allocate, b"):
        make_optimizer("lion", values, eps=1.0)
    with pytest.raises(HyperparameterError, match="group 'head' matches no parameter; there are w"):
        make_optimizer("adamw", values, groups=[Group("head")])
    with pytest.raises(HyperparameterError, match="the rate of group 'w' is -1"):
        Group("w", rate=-1)
    with pytest.raises(HyperparameterError, match="weight_decay of group 'w' is nan"):
        Group("w", weight_decay=np.nan)


def test_betas_of_an_optimiser_with_one_decay():
    assert make_optimizer("sgd", {"w": np.ones(2)}, betas=(0.8, 0.9)).momentum == 0.8
    assert make_optimizer("sgd", {"w": np.ones(2)}, betas=(0.8, 0.9), momentum=0.5).momentum == 0.5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12 counts BLAS's threads
def test_a_forked_worker_sees_the_view_and_the_state_that_was_loaded():
    """What is decided after the fork must reach it: here a view, a state and the rates in it."""

    def shared(size, dtype):
        n_bytes = max(1, size * np.dtype(dtype).itemsize)
        return np.frombuffer(mmap.mmap(-1, n_bytes), dtype, count=size)

    gradients = {"w": np.ones(8)}
    other = make_optimizer("schedule-free", {"w": np.zeros(8)})
    values = {"w": shared(8, np.float64)}
    optimizer = make_optimizer("schedule-free", values, allocate=shared)

    def child_updates():
        """Whether a child, forked before what follows, could make update number 3."""
        command_out, command_in = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.read(command_out, 1)
            try:
                optimizer.update(gradients, step=3, learning_rate=0.1)
            except StateError:
                os._exit(1)
            os._exit(0)

        def go():
            os.write(command_in, b"x")
            os.close(command_in)
            os.close(command_out)
            return os.waitpid(pid, 0)[1] == 0

        return go

    go = child_updates()
    optimizer.eval()
    assert not go()
    optimizer.train()
    go = child_updates()
    other.step(gradients, learning_rate=0.1)
    other.step(gradients, learning_rate=0.2)
    optimizer.load_state({name: array.copy() for name, array in other.state().items()})
    assert go()
    expected = make_optimizer("schedule-free", twin := {"w": np.zeros(8)})
    for rate in (0.1, 0.2, 0.1):
        expected.step(gradients, learning_rate=rate)
    assert twin["w"].tobytes() == values["w"].tobytes()
