"""Many texts in one pass are what each of them is alone."""

from __future__ import annotations

import numpy as np
import pytest

from phi_infer.gpt_cache import ContextError
from phi_infer.steps import fold, new_batch, new_step
from phi_infer.text_state import TextState
from phi_model import ConfigError

KINDS = [
    {},
    {"n_head": 4, "n_kv_head": 2, "qk_norm": True, "rope_scaling": 2.0, "tied_head": False},
    {"kind": "rwkv7"},
    {"kind": "rwkv7", "tied_head": False, "n_layer": 3},
    {"n_embd": 192, "vocab_size": 12_000},  # matrices that lie by rows
    {"kind": "rwkv7", "n_embd": 192, "vocab_size": 12_000},
]
TOLERANCE = {"rtol": 5e-4, "atol": 2e-4}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("changes", KINDS)
def test_equals_single_streams_as_texts_come_and_go(make_model, changes, workers):
    """At different positions, beyond the context, in any order, any of them left out."""
    model = make_model(3, **changes)
    rng = np.random.default_rng(1)
    weights = fold(model.config, model.parameters)
    batch, alone = new_batch(weights, 5, workers=workers), {}
    try:
        for _ in range(60):
            if batch.free and rng.random() < 0.4:
                ids = rng.integers(0, 300, rng.integers(1, 30)).tolist()
                slot = batch.add(ids)
                assert slot not in alone
                alone[slot] = new_step(weights)
                expected = alone[slot].prefill(ids)
                np.testing.assert_allclose(batch.logits[slot], expected, **TOLERANCE)
            if alone and rng.random() < 0.15:
                slot = int(rng.choice(list(alone)))
                batch.remove(slot)
                del alone[slot]
            if alone and rng.random() < 0.15:
                slot, more = int(rng.choice(list(alone))), rng.integers(0, 300, 7).tolist()
                batch.extend(slot, more)
                expected = [alone[slot](token) for token in more][-1]
                np.testing.assert_allclose(batch.logits[slot], expected, **TOLERANCE)
            some = [slot for slot in alone if rng.random() < 0.8]
            if some:
                rng.shuffle(some)
                tokens = rng.integers(0, 300, len(some)).tolist()
                logits = batch.step(some, tokens)
                for row, slot, token in zip(logits, some, tokens, strict=True):
                    np.testing.assert_allclose(row, alone[slot](token), **TOLERANCE)
    finally:
        batch.close()


@pytest.mark.parametrize("changes", KINDS)
def test_workers_change_rounding_only_and_a_repetition_nothing(make_model, changes):
    model = make_model(4, **changes)
    weights = fold(model.config, model.parameters)
    found = []
    for workers in (1, 2, 1, 2):
        batch = new_batch(weights, 4, workers=workers)
        slots = [batch.add([7 + i, 8, 9]) for i in range(4)]
        found.append([batch.step(slots, [i, 2, 3, 4]) for i in range(5)])
        batch.close()
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[3])
    np.testing.assert_allclose(found[0], found[1], **TOLERANCE)


def test_extreme_scores_in_one_text_leave_the_others_alone(make_model):
    model = make_model(11)
    model.parameters["layers.1.attention.qkv"][:32] *= 30
    weights = fold(model.config, model.parameters)
    batch = new_batch(weights, 3)
    prompts = [[1], [2, 3, 4, 5], list(range(16))]
    slots = [batch.add(ids) for ids in prompts]
    logits = batch.step(slots, [9, 9, 9])
    for ids, row in zip(prompts, logits, strict=True):
        step = new_step(weights)
        step.prefill(ids)
        np.testing.assert_allclose(row, step(9), rtol=1e-2, atol=1e-3 * np.abs(row).max())


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("before", [1, 12, 40])
@pytest.mark.parametrize("changes", KINDS)
def test_a_text_goes_on_from_a_state(make_model, changes, before, workers):
    """At its very end or by further ids; the state and the other texts stay as they are."""
    weights = fold((model := make_model(6, **changes)).config, model.parameters)
    rng = np.random.default_rng(2)
    ids = rng.integers(0, 300, before).tolist()
    step, first = new_step(weights), new_step(weights)
    state = TextState(ids, step, step.prefill(ids))
    batch = new_batch(weights, 4, workers=workers)
    try:
        alone = {batch.add([7, 8]): first}
        first.prefill([7, 8])
        for more in ([], [3], [4, 5, 6]):
            slot = batch.add(more, state=state)
            alone[slot] = state.step.copy()
            expected = alone[slot].prefill(more) if more else state.logits
            np.testing.assert_allclose(batch.logits[slot], expected, **TOLERANCE)
        assert step.position == before
        for _ in range(6):
            tokens = rng.integers(0, 300, 4).tolist()
            logits = batch.step(list(alone), tokens)
            for row, one, token in zip(logits, alone.values(), tokens, strict=True):
                np.testing.assert_allclose(row, one(token), **TOLERANCE)
    finally:
        batch.close()


def test_states_of_another_model_or_window_are_refused(make_model):
    model, twin = make_model(6), make_model(7)
    weights, other = (fold(m.config, m.parameters) for m in (model, twin))
    batch = new_batch(weights, 2)
    for step in (new_step(other), new_step(weights, window=8)):
        state = TextState([1, 2], step, step.prefill([1, 2]))
        with pytest.raises(ConfigError, match="another model's or window's"):
            batch.add([3], state=state)
    assert batch.free == 2


def test_a_slot_is_empty_for_the_next_text(make_model):
    model = make_model(5)
    weights = fold(model.config, model.parameters)
    batch = new_batch(weights, 1, window=8)
    first = batch.add(list(range(8)))
    batch.remove(first)
    assert batch.add([3]) == first
    np.testing.assert_allclose(batch.logits[first], new_step(weights)(3), **TOLERANCE)
    np.testing.assert_allclose(
        batch.step([first], [4])[0], new_step(weights).prefill([3, 4]), **TOLERANCE
    )


def test_texts_bound_to_their_context(make_model):
    model = make_model(5)
    batch = new_batch(fold(model.config, model.parameters), 2, window=0)
    full, short = batch.add(list(range(16))), batch.add([1])
    with pytest.raises(ContextError):
        batch.step([short, full], [1, 1])
    batch.step([short], [1])


def test_mistakes(make_model):
    model = make_model(5)
    weights = fold(model.config, model.parameters)
    batch = new_batch(weights, 1)
    with pytest.raises(ConfigError, match="not all of texts"):
        batch.step([0], [1])
    batch.add([1])
    with pytest.raises(ConfigError, match="all 1 slots are taken"):
        batch.add([1])
    with pytest.raises(ConfigError, match="not all of texts"):
        batch.step([3], [1])
    batch.remove(0)
    with pytest.raises(ConfigError, match="slot 0 holds no text"):
        batch.remove(0)
    with pytest.raises(ConfigError, match="slot 0 holds no text"):
        batch.extend(0, [1])
    with pytest.raises(ConfigError, match="at least one slot to each"):
        new_batch(weights, 1, workers=2)
