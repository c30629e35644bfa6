"""RWKV7 whole: finite differences, its plain twin, weights, states, borders, workers, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from phi_model import (
    GPT,
    RWKV7,
    CheckpointError,
    ConfigError,
    ModelConfig,
    RWKV7State,
    build_model,
    check_gradients,
    load_checkpoint,
    save_checkpoint,
)
from phi_model.rwkv7.reference import ReferenceRWKV7

Array = NDArray[Any]

SHAPES = {
    "one layer": {"n_layer": 1},
    "three layers": {"n_layer": 3},
    "odd sizes": {"n_embd": 9, "n_head": 3, "n_hidden": 5, "vocab_size": 7},
    "head of its own": {"tied_head": False},
    "two ids": {"vocab_size": 2, "n_layer": 1},
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


def small(**changes: Any) -> ModelConfig:
    sizes = {"vocab_size": 11, "n_embd": 8, "n_layer": 2, "n_head": 2, "seq_len": 16}
    return ModelConfig(kind="rwkv7", **(sizes | changes))


def lively(config: ModelConfig, *, seed: int = 0, dtype: Any = np.float32) -> RWKV7:
    """Far from its start, where whole branches are zero and an error in them could hide."""
    model = RWKV7(config, dtype=dtype)
    rng = np.random.default_rng(seed)
    for name, value in model.parameters.items():
        normal = rng.standard_normal(value.shape)
        if name.endswith(".gain"):
            value[...] = 1 + normal / 8
        elif value.ndim == 1:
            value[...] = normal / 4 + 1.5 * name.endswith(".k_k")
        else:
            value[...] = normal * (1 if name == "embedding" else 0.6 * value.shape[1] ** -0.5)
    return model


def batch_of(config: ModelConfig, batch: int, length: int, *, seed: int = 0) -> tuple[Array, Array]:
    ids, targets = np.random.default_rng(seed).integers(0, config.vocab_size, (2, batch, length))
    return ids, targets


def random_state(config: ModelConfig, batch: int, *, seed: int = 0) -> RWKV7State:
    state = RWKV7State.zeros(config, batch=batch, dtype=np.float64)
    rng = np.random.default_rng(seed)
    for array in state.arrays.values():
        array[...] = rng.standard_normal(array.shape)
    return state


def relative(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


def random_reset(batch: int, length: int) -> Array:
    return np.random.default_rng(9).random((batch, length)) < 0.2


# --- gradients by finite differences ------------------------------------------------------------


@shapes
def test_every_parameter_by_finite_differences(shape: dict[str, Any]) -> None:
    config = small(**shape)
    ids, targets = batch_of(config, 2, 7)
    rows = check_gradients(lively(config), ids=ids, targets=targets, elements=2)
    assert [row.name for row in rows] == list(build_model(config).parameters)
    assert all(row.ok for row in rows), [row for row in rows if not row.ok]


def test_a_gradient_that_is_zero_by_nature_is_no_mistake() -> None:
    """A new model's values are 0, so nothing reaches its keys; one that misses is still found."""
    model = build_model(small())
    rows = {row.name: row for row in check_gradients(model, elements=2)}
    zero = [row for row in rows.values() if row.gradient_norm == 0]
    assert zero
    assert all(row.ok for row in rows.values())


def test_weight_decay_leaves_vectors_and_loras_alone() -> None:
    model = build_model(small())
    decaying = {name for name in model.parameters if model.decays(name)}
    assert {"embedding", "layers.0.channel_mix.key"} <= decaying
    assert not [name for name in decaying if name.endswith(("_down", "_up", "gain", "bias"))]


def test_the_plain_twin_by_finite_differences_with_state_and_borders() -> None:
    """The twin is not the fast path: it is checked by itself, over more than a chunk."""
    config = small()
    model = lively(config, dtype=np.float64)
    ids, targets = batch_of(config, 2, 19)
    factors = np.random.default_rng(3).standard_normal(ids.shape)
    reset, start = random_reset(2, 19), random_state(config, 2)
    twin = ReferenceRWKV7(config, model.parameters)

    def run() -> tuple[float, dict[str, Array]]:
        return twin.loss_and_grad(ids, targets, factors, state=start.copy(), reset=reset)

    gradients, rng = run()[1], np.random.default_rng(4)
    assert set(gradients) == set(model.parameters)
    for name, value in model.parameters.items():
        direction = rng.standard_normal(value.shape)
        direction /= np.linalg.norm(direction)
        before, samples = value.copy(), []
        for multiple in (-2, -1, 1, 2):
            value[...] = before + multiple * 1e-4 * direction
            samples.append(run()[0])
        value[...] = before
        slope = (samples[0] - 8 * samples[1] + 8 * samples[2] - samples[3]) / 12e-4
        size = np.linalg.norm(gradients[name]) / np.sqrt(value.size)
        error = abs(slope - (gradients[name] * direction).sum())
        assert error < 1e-6 * max(size, 1e-2), name


def test_every_parameter_has_a_gradient() -> None:
    model = lively(small(n_layer=3))
    model.loss_and_grad(*batch_of(model.config, 2, 9))
    assert all(np.abs(gradient).max() > 0 for gradient in model.gradients.values())


# --- the plain twin -----------------------------------------------------------------------------


@shapes
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 5), (2, 16), (1, 37)])
@pytest.mark.parametrize("carried", [False, True], ids=["alone", "state and borders"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-3), (np.float64, 1e-10)])
def test_loss_and_gradients_equal_the_twin(
    shape: dict[str, Any], batch: int, length: int, carried: bool, dtype: Any, tolerance: float
) -> None:
    config = small(**shape)
    model = lively(config, dtype=dtype)
    ids, targets = batch_of(config, batch, length)
    weights = np.random.default_rng(1).standard_normal(ids.shape)
    state = random_state(config, batch) if carried else None
    reset = random_reset(batch, length) if carried else None
    double = {name: value.astype(np.float64) for name, value in model.parameters.items()}
    twin_state = state.copy() if state else None
    expected, gradients = ReferenceRWKV7(config, double).loss_and_grad(
        ids, targets, weights / weights.size, state=twin_state, reset=reset
    )
    loss = model.loss_and_grad(ids, targets, weights, state=state, reset=reset)
    assert loss == pytest.approx(expected, rel=tolerance, abs=tolerance)
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        error = np.abs(model.gradients[name] - gradient).max()
        assert error < tolerance * max(np.abs(gradient).max(), 1e-2 * largest), name
    assert model.gradient_norm == pytest.approx(
        np.sqrt(sum(float((g * g).sum()) for g in gradients.values())), rel=tolerance
    )
    if state and twin_state:
        assert state.position == twin_state.position == length
        for name, array in state.arrays.items():
            assert relative(array, twin_state.arrays[name]) < tolerance


def test_values_of_the_first_layer_reach_the_last() -> None:
    """Without the value residual the first layer's values would not matter to a dead stream."""
    model = lively(small(n_layer=3), dtype=np.float64)
    p = model.parameters
    p["layers.0.time_mix.output"][...] = 0  # the first layer says nothing by itself
    ids, targets = batch_of(model.config, 2, 9)
    model.loss_and_grad(ids, targets)
    assert np.abs(model.gradients["layers.0.time_mix.value"]).max() > 1e-4
    for i in (1, 2):
        p[f"layers.{i}.time_mix.v_bias"][...] = -1e9
    model.loss_and_grad(ids, targets)
    assert not np.abs(model.gradients["layers.0.time_mix.value"]).max()


# --- states -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [[20], [1, 2, 17], [16, 32], [5, 21, 36]])
def test_pieces_with_a_state_are_the_whole(cuts: list[int]) -> None:
    model = lively(small(), dtype=np.float64)
    ids, targets = batch_of(model.config, 2, 37)
    whole, probs = model.logits(ids), model.token_log_probs(ids, targets)
    state = RWKV7State.zeros(model.config, batch=2, dtype=np.float64)
    other = state.copy()
    for first, end in zip([0, *cuts], [*cuts, 37], strict=True):
        part = slice(first, end)
        np.testing.assert_allclose(
            model.logits(ids[:, part], state=state), whole[:, part], rtol=1e-9, atol=1e-10
        )
        np.testing.assert_allclose(
            model.token_log_probs(ids[:, part], targets[:, part], state=other),
            probs[:, part],
            rtol=1e-9,
            atol=1e-10,
        )
        assert state.position == other.position == end


def test_a_reset_makes_documents_strangers() -> None:
    model = lively(small(), dtype=np.float64)
    ids, targets = batch_of(model.config, 1, 30)
    reset = np.zeros((1, 30), bool)
    reset[0, [11, 25]] = True
    found = model.token_log_probs(ids, targets, reset=reset, state=random_state(model.config, 1))
    for first, end in ((11, 25), (25, 30)):
        alone = model.token_log_probs(ids[:, first:end], targets[:, first:end])
        np.testing.assert_allclose(found[:, first:end], alone, rtol=1e-9, atol=1e-10)
    assert np.abs(found[:, :11] - model.token_log_probs(ids, targets)[:, :11]).max() > 1e-6


def test_training_can_use_what_lies_before_the_batch() -> None:
    """The target is the token of the segment before: only a carried state can know it."""
    config = small(vocab_size=4, n_embd=16, n_layer=1, n_head=1)
    rng = np.random.default_rng(0)
    losses = {}
    for carried in (True, False):
        model = lively(config, seed=1)
        for step in range(300):
            secret = rng.integers(0, 2, (16, 1))
            state = RWKV7State.zeros(config, batch=16)
            model.logits(secret, state=state)
            question = np.full((16, 1), 3)
            loss = model.loss_and_grad(question, secret, state=state if carried else None)
            model.parameters.flat -= 0.5 * model.gradients.flat / (1 + model.gradient_norm)
            losses[carried] = loss if step == 0 else 0.9 * losses.get(carried, loss) + 0.1 * loss
    assert losses[True] < 0.1
    assert losses[False] > 0.6


def test_a_state_is_a_small_file(tmp_path: Path) -> None:
    config = ModelConfig.preset("rwkv7-1m")
    state = RWKV7State.zeros(config)
    assert state.nbytes == 69_632
    rng = np.random.default_rng(0)
    for array in state.arrays.values():
        array[...] = rng.standard_normal(array.shape)
    state.position = 1_000_000
    state.save(tmp_path / "state")
    assert 69_632 < (tmp_path / "state").stat().st_size < 70_000
    again = RWKV7State.load(tmp_path / "state")
    assert again.position == 1_000_000
    for name, array in again.arrays.items():
        np.testing.assert_array_equal(array, state.arrays[name])
        assert array.dtype == np.float32
        assert array.flags.writeable


def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    RWKV7State.zeros(small()).save(path)
    sound = path.read_bytes()
    for damaged in (b"", b"\xc1", sound[:-9], sound[:-9] + b"x" * 9, b"\x81\xa1a\x01"):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"state"):
            RWKV7State.load(path)
    path.write_bytes(sound.replace(b"version\x01", b"version\x09"))
    with pytest.raises(CheckpointError, match="version 9"):
        RWKV7State.load(path)


def test_states_and_borders_that_do_not_fit_are_refused() -> None:
    model = RWKV7(small())
    ids, targets = batch_of(model.config, 2, 4)
    with pytest.raises(ConfigError, match=r"RWKV7State\.zeros"):
        model.loss_and_grad(ids, targets, state=RWKV7State.zeros(model.config, batch=3))
    with pytest.raises(ConfigError, match=r"reset .* shape \(2, 4\)"):
        model.loss_and_grad(ids, targets, reset=np.zeros((2, 3), bool))
    with pytest.raises(ConfigError, match="only an rwkv7"):
        RWKV7State.zeros(ModelConfig())
    with pytest.raises(ConfigError, match="build_model"):
        RWKV7(ModelConfig())


# --- workers and files --------------------------------------------------------------------------


@pytest.mark.parametrize("runner", ["inline", "threads", "processes"])
def test_workers_change_nothing_but_rounding(runner: str) -> None:
    config = small()
    ids, targets = batch_of(config, 5, 21)
    weights = np.random.default_rng(1).standard_normal(ids.shape)
    reset = random_reset(5, 21)
    alone, many = lively(config, dtype=np.float64), lively(config, dtype=np.float64)
    first, second = random_state(config, 5), random_state(config, 5)
    many.start_workers(2, batch_size=5, seq_len=21, runner=runner)
    try:
        for _ in range(2):
            one = alone.loss_and_grad(ids, targets, weights, state=first, reset=reset)
            two = many.loss_and_grad(ids, targets, weights, state=second, reset=reset)
            assert one == pytest.approx(two, rel=1e-12)
            for name, gradient in alone.gradients.items():
                assert relative(many.gradients[name], gradient) < 1e-9
            for name, array in first.arrays.items():
                assert relative(second.arrays[name], array) < 1e-12
        assert alone.loss(ids, targets) == pytest.approx(many.loss(ids, targets), rel=1e-12)
        tall = batch_of(config, 1, 40)  # fewer rows than workers, more tokens than were foreseen
        assert alone.loss_and_grad(*tall) == pytest.approx(many.loss_and_grad(*tall), rel=1e-12)
    finally:
        many.stop_workers()


def test_the_same_seed_gives_the_same_bits() -> None:
    config = small(n_embd=32, n_head=1)
    runs = []
    for _ in range(2):
        model = RWKV7(config, seed=3)
        for step in range(3):
            model.loss_and_grad(*batch_of(config, 2, 20, seed=step))
            model.parameters.flat -= 0.1 * model.gradients.flat
        runs.append(model.parameters.flat.copy())
    np.testing.assert_array_equal(*runs)
    assert np.abs(runs[0] - RWKV7(config, seed=4).parameters.flat).max() > 0


def test_a_checkpoint_brings_it_back(tmp_path: Path) -> None:
    model = lively(small(tied_head=False))
    save_checkpoint(tmp_path / "a.phi", model, step=5)
    loaded = load_checkpoint(tmp_path / "a.phi")
    assert loaded.config == model.config
    assert type(loaded.model) is RWKV7
    ids, _ = batch_of(model.config, 2, 9)
    np.testing.assert_array_equal(loaded.model.logits(ids), model.logits(ids))


def test_build_model_builds_the_kind() -> None:
    assert type(build_model(small())) is RWKV7
    assert type(build_model(ModelConfig(n_embd=8, n_layer=1, n_head=1))) is GPT


def test_a_pass_without_gradients_is_the_same() -> None:
    model = lively(small(n_layer=3))
    ids, targets = batch_of(model.config, 2, 21)
    assert model.loss(ids, targets) == pytest.approx(model.loss_and_grad(ids, targets), rel=1e-6)
    logits = model.logits(ids).astype(np.float64)
    expected = (
        np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    )
    np.testing.assert_allclose(-model.token_log_probs(ids, targets), expected, rtol=1e-4)


def test_the_future_does_not_matter() -> None:
    model = lively(small())
    ids, _ = batch_of(model.config, 1, 40)
    before = model.logits(ids)
    ids[0, 25:] = (ids[0, 25:] + 1) % model.config.vocab_size
    np.testing.assert_array_equal(model.logits(ids)[0, :25], before[0, :25])
