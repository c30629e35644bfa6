"""Ways to make a text: alone, in a batch, from a state; how it ends; what it scores."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import msgpack
import numpy as np
import pytest

from phi_infer import FormatError, ModelError, SamplingError, load
from phi_infer.batch import Batch
from phi_infer.steps import fold, new_batch
from phi_infer.text_state import PromptCache
from phi_model import build_model, load_checkpoint, save_checkpoint
from phi_tokenizer import Tokenizer

KINDS = {"gpt": {}, "rwkv7": {"kind": "rwkv7", "n_embd": 32, "n_head": 2}}
TEXT = "The bear was glad, der Bär süßt Öl für 日本語."


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def path(request, tmp_path, make_model, tokenizer):
    """A small file of each kind of model, its context 32."""
    path = tmp_path / "m.phi"
    model = make_model(4, **({"seq_len": 32} | request.param))
    save_checkpoint(path, model, tokenizer=tokenizer.to_bytes())
    return path


@pytest.fixture
def generator(path):
    return load(path)


def by_hand(path, ids, n_tokens, choose):
    """Tokens drawn by `choose(logits, drawn)` from the whole text's logits, again for each."""
    model = load_checkpoint(path).model
    text, drawn = list(ids), []
    for _ in range(n_tokens):
        token = choose(model.logits([text])[0, -1].astype(np.float64), drawn)
        text.append(token)
        drawn.append(token)
    return drawn


# --- batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 3, 32])
@pytest.mark.parametrize("temperature", [0, 0.9])
def test_a_batch_makes_the_texts_of_single_calls(generator, slots, temperature):
    prompts = ["", "The bear", "Der Bär", "süßt Öl für", "The bear was glad", "日", "a"]
    options = {"max_tokens": 25, "temperature": temperature, "top_p": 0.9, "repeat_penalty": 1.2,
               "frequency_penalty": 0.3, "stop": ["ear"]}  # fmt: skip
    texts = generator.generate_batch(prompts, seed=7, slots=slots, **options)
    singles = [generator.generate(p, seed=7 + i, **options) for i, p in enumerate(prompts)]
    assert texts == singles
    assert len(set(texts)) > 3


def test_a_batch_over_two_workers(generator):
    prompts = [TEXT[: 3 * n] for n in range(6)]
    one = generator.generate_batch(prompts, seed=1, max_tokens=12)
    assert generator.generate_batch(prompts, seed=1, max_tokens=12, workers=2) == one


def test_batches_of_nothing(generator):
    assert generator.generate_batch([]) == []
    assert generator.generate_batch(["a", "b"], max_tokens=0) == ["", ""]
    for options in ({"slots": 0}, {"workers": 0}, {"tmeperature": 1}, {"seed": -1}):
        with pytest.raises(SamplingError):
            generator.generate_batch(["a"], **options)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_batch_goes_on_from_a_state(generator, workers):
    state = generator.read("The bear")
    prompts = ["", " was", " who liked to sing", " was"]
    options = {"state": state, "max_tokens": 12}
    singles = [generator.generate(p, seed=5 + i, **options) for i, p in enumerate(prompts)]
    batch = generator.generate_batch(prompts, seed=5, slots=2, workers=workers, **options)
    assert batch == singles
    assert len(set(singles)) == 4


def test_a_batch_reads_no_prompt_of_the_cache_again(path, monkeypatch):
    plain, cached = load(path), load(path, prompt_cache=2)
    prompts, options = ["The bear", "The bear was", "A"], {"max_tokens": 10, "seed": 3}
    expected = plain.generate_batch(prompts, **options)
    cached.read("The bear")
    read = []
    original = Batch.add

    def counting(self, ids, **more):
        read.append(len(ids))
        return original(self, ids, **more)

    monkeypatch.setattr(Batch, "add", counting)
    assert cached.generate_batch(prompts, **options) == expected
    known = len(plain.prompt_ids("The bear"))
    lengths = [len(plain.prompt_ids(prompt)) for prompt in prompts]
    assert read == [0, lengths[1] - known, lengths[2]]


# --- penalties, biases, log-probabilities -------------------------------------------------------


def test_penalties_count_what_was_drawn_and_not_the_prompt(path, generator):
    ids = generator.prompt_ids("The bear The bear")

    def choose(logits, drawn):
        for token in set(drawn):
            logits[token] -= 0.7 * drawn.count(token) + 0.4
        return int(np.argmax(logits))

    options = {"temperature": 0, "frequency_penalty": 0.7, "presence_penalty": 0.4}
    found = generator.complete("The bear The bear", max_tokens=12, **options)
    expected = by_hand(path, ids, 12, choose)
    assert found.ids == expected[: len(found.ids)]
    assert found.ids != generator.complete("The bear The bear", max_tokens=12, temperature=0).ids


def test_logit_bias_forces_and_bans(generator):
    word = generator.tokenizer.encode("b")[0]
    forced = generator.complete("The", max_tokens=5, logit_bias={word: 100.0})
    assert forced.ids == [word] * 5
    plain = generator.complete("The", max_tokens=20, temperature=0)
    banned = generator.complete(
        "The", max_tokens=20, temperature=0, logit_bias=dict.fromkeys(plain.ids, -100)
    )
    assert not set(plain.ids) & set(banned.ids)
    with pytest.raises(SamplingError, match="names token 300; ids go from 0 to 299"):
        generator.stream("The", logit_bias={300: 1.0})
    with pytest.raises(SamplingError, match="logit_bias of token 3 is nan"):
        generator.stream("The", logit_bias={3: math.nan})


def test_log_probs_are_the_model_s_own(path, generator):
    found = generator.complete("The", max_tokens=8, temperature=1.5, seed=3, top_k=9,
                               repeat_penalty=1.3, log_probs=4)  # fmt: skip
    ids = generator.prompt_ids("The")
    logits = load_checkpoint(path).model.logits([ids + found.ids])[0].astype(np.float64)
    assert [choice.id for choice in found.choices] == found.ids
    assert len(found.ids) == 8
    for place, choice in enumerate(found.choices):
        row = logits[len(ids) - 1 + place]
        log_p = row - np.log(np.exp(row - row.max()).sum()) - row.max()
        assert choice.log_prob == pytest.approx(log_p[choice.id], abs=1e-4)
        best = sorted(log_p, reverse=True)[:4]
        assert [p for _, p in choice.alternatives] == pytest.approx(best, abs=1e-4)
        assert all(p == pytest.approx(log_p[i], abs=1e-4) for i, p in choice.alternatives)


def test_how_many_log_probs(generator):
    assert generator.complete("The", max_tokens=2).choices == []
    only = generator.complete("The", max_tokens=2, log_probs=0).choices
    assert [choice.alternatives for choice in only] == [[], []]
    with pytest.raises(SamplingError, match="log_probs is 101; it must be between 0 and 100"):
        generator.complete("The", log_probs=101)


# --- ends ---------------------------------------------------------------------------------------


def test_every_way_to_end_is_named(tmp_path, make_model, tokenizer):
    model = make_model(4, seq_len=16)
    path = tmp_path / "m.phi"
    save_checkpoint(path, model, tokenizer=tokenizer.to_bytes())
    generator = load(path)
    end = tokenizer.eot_token
    never = {"logit_bias": {end: -100.0}, "temperature": 0}
    assert generator.complete("", max_tokens=3, **never).finish == "length"
    assert generator.complete("", max_tokens=3, logit_bias={end: 100.0}).finish == "end"
    stopped = generator.complete("", max_tokens=30, seed=2, temperature=2.0, stop=["e", " ", "a"])
    assert stopped.finish == "stop"
    full = generator.complete("The", max_tokens=99, context="stop", **never)
    assert full.finish == "context"
    # every place of the context was read, and one more token drawn from the last of them
    assert len(generator.prompt_ids("The")) + len(full.ids) == 16 + 1
    beyond = generator.complete("The", max_tokens=40, **never)
    assert beyond.ids[: len(full.ids)] == full.ids
    assert len(beyond.ids) == 40
    batch = generator.complete_batch(["The", ""], max_tokens=99, context="stop", **never)
    assert [one.finish for one in batch] == ["context"] * 2
    assert batch[0].ids == full.ids


def test_prompts_longer_than_the_context(generator):
    long = "x" * 200
    if generator.config.kind == "rwkv7":
        assert generator.complete(long, max_tokens=3, context="stop").finish == "length"
        return
    with pytest.raises(SamplingError, match="the prompt has 201 tokens, more than the model's"):
        generator.stream(long, context="stop")
    assert len(generator.complete(long, max_tokens=3).ids) == 3
    with pytest.raises(SamplingError, match="context is 'slide'; it must be window or stop"):
        generator.stream("", context="slide")


def test_the_window_slides_over_the_last_tokens(tmp_path, make_model, tokenizer):
    """One layer, so that what a GPT sees is just the last `seq_len` tokens: a full recompute."""
    path = tmp_path / "one.phi"
    model = make_model(6, n_layer=1, seq_len=8)
    save_checkpoint(path, model, tokenizer=tokenizer.to_bytes())
    generator = load(path)
    found = generator.complete("The", max_tokens=30, temperature=0,
                               logit_bias={tokenizer.eot_token: -100.0})  # fmt: skip
    text = generator.prompt_ids("The")
    for token in found.ids:
        logits = model.logits([text[-8:]])[0, -1]
        logits[tokenizer.eot_token] -= 100
        assert logits[token] > logits.max() - 1e-4
        text.append(token)
    assert len(found.ids) == 30


# --- states -------------------------------------------------------------------------------------


def test_a_text_goes_on_from_a_state_any_number_of_times(path, generator, tmp_path):
    state = generator.read("The bear")
    assert state.ids == generator.prompt_ids("The bear")
    expected = [generator.generate("The bear", seed=s, max_tokens=20) for s in range(3)]
    assert [generator.generate(state=state, seed=s, max_tokens=20) for s in range(3)] == expected
    longer = generator.read(" was", state=state)
    assert longer.ids == state.ids + generator.tokenizer.encode(" was")
    whole = load(path).read("The bear")
    whole.read(generator.tokenizer.encode(" was"))
    np.testing.assert_allclose(longer.logits, whole.logits, atol=1e-4)
    generator.save_state(state, tmp_path / "state")
    again = load(path).load_state(tmp_path / "state")
    assert again.ids == state.ids
    assert [load(path).generate(state=again, seed=s, max_tokens=20) for s in range(3)] == expected


def test_states_of_other_models_and_damaged_ones(generator, tmp_path, make_model, tokenizer):
    file = tmp_path / "state"
    generator.save_state(generator.read("The bear"), file)
    content = file.read_bytes()
    other = tmp_path / "other.phi"
    config = {"kind": generator.config.kind, "n_embd": generator.config.n_embd, "seq_len": 32}
    save_checkpoint(other, make_model(5, **config), tokenizer=tokenizer.to_bytes())
    with pytest.raises(FormatError, match="the state of another model"):
        load(other).load_state(file)
    rng = np.random.default_rng(0)
    for cut in (0, 1, 9, 50, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:cut])
        with pytest.raises(FormatError, match="a saved state of a text"):
            generator.load_state(file)
    for place in rng.integers(0, len(content), 50):
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        with pytest.raises(FormatError, match="a saved state of a text"):
            generator.load_state(file)
    for value in (None, 7, [1], {"format": "phi-text-state"}, "x"):
        file.write_bytes(msgpack.packb(value))
        with pytest.raises(FormatError, match="a saved state of a text"):
            generator.load_state(file)
    with pytest.raises(FileNotFoundError):
        generator.load_state(tmp_path / "missing")


def test_a_prompt_cache_reads_only_what_is_new(path, monkeypatch):
    plain, cached = load(path), load(path, prompt_cache=2)
    read = []
    kind = type(cached.new_step())
    original = kind.prefill

    def counting(self, ids):
        read.append(len(ids))
        return original(self, ids)

    options = {"max_tokens": 15, "seed": 3}
    expected = [plain.generate(p, **options) for p in ("The bear", "The bear was", "The bear")]
    monkeypatch.setattr(kind, "prefill", counting)
    ids = [plain.prompt_ids(p) for p in ("The bear", "The bear was")]
    assert ids[1][: len(ids[0])] == ids[0]
    found = [cached.generate(p, **options) for p in ("The bear", "The bear was", "The bear")]
    assert found == expected
    assert read[0] == len(ids[0])
    assert sum(read) == len(ids[1])


def test_a_prompt_cache_forgets_the_oldest(generator):
    cache = PromptCache(2)
    one, two, three = (generator.read(text) for text in ("a", "b", "c"))
    for state in (one, two):
        cache.keep(state)
    assert cache.find([*one.ids, 5]).ids == one.ids
    cache.keep(three)  # two was not used for the longest time
    assert cache.find(two.ids) is None
    assert cache.find(three.ids).ids == three.ids
    none = PromptCache(0)
    none.keep(one)
    assert none.find(one.ids) is None


# --- scores -------------------------------------------------------------------------------------


def test_a_score_is_the_model_s_token_log_probs(path, generator):
    ids = generator.prompt_ids(TEXT)
    assert 10 < len(ids) <= 32
    score = generator.score(TEXT, end=True)
    end = generator.tokenizer.eot_token
    model = load_checkpoint(path).model
    expected = model.token_log_probs([ids], [[*ids[1:], end]])[0]
    np.testing.assert_allclose(score.log_probs, expected, atol=1e-4)
    assert score.ids == [*ids[1:], end]
    assert score.loss == pytest.approx(-expected.mean(), abs=1e-4)
    bits = -expected.sum() / math.log(2) / len(TEXT.encode())
    assert score.bits_per_byte == pytest.approx(bits, abs=1e-4)
    without = generator.score(TEXT)
    assert without.log_probs == score.log_probs[:-1]
    assert score.perplexity == pytest.approx(math.exp(score.loss))


def test_the_score_of_nothing(generator):
    empty = generator.score("")
    assert (empty.ids, empty.nats) == ([], 0)
    assert math.isnan(empty.loss)
    assert math.isnan(empty.bits_per_byte)
    assert len(generator.score("", end=True).ids) == 1


def test_completions_are_plain_values(generator):
    found = generator.complete("The", max_tokens=3, log_probs=1)
    assert json.dumps([found.text, found.finish, found.ids, found.seed])
    assert found.text == generator.generate("The", max_tokens=3)


# --- ids that stand for nothing -----------------------------------------------------------------


@pytest.fixture
def gappy(tmp_path, make_model, tokenizer):
    """A generator whose tokenizer has holes, as some published vocabularies have them."""
    vocabulary = tokenizer.vocabulary
    end = max(vocabulary.special.values())
    tokens = [None if i == end else token for i, token in enumerate(vocabulary.tokens)]
    tokens += [None, None, *(name.encode() for name in vocabulary.special)]
    special = {name: len(tokens) - 1 for name in vocabulary.special}
    holes = Tokenizer(replace(vocabulary, tokens=tokens, special=special))
    model = make_model(1, vocab_size=len(tokens) + 3)
    save_checkpoint(tmp_path / "gappy.phi", model, tokenizer=holes.to_bytes())
    return load(tmp_path / "gappy.phi"), [i for i, token in enumerate(tokens) if token is None]


def test_an_id_that_stands_for_nothing_is_never_drawn(gappy):
    generator, holes = gappy
    assert len(holes) == 3
    options = {"max_tokens": 60, "seed": 3, "logit_bias": dict.fromkeys(holes, 100.0)}
    made = generator.complete("The bear", temperature=50.0, log_probs=20, **options)
    assert len(made.ids) > 20
    assert not set(made.ids) & set(holes)
    assert not {i for choice in made.choices for i, _ in choice.alternatives} & set(holes)
    assert all(math.isfinite(p) for choice in made.choices for _, p in choice.alternatives)
    (batch,) = generator.complete_batch(["The bear"], temperature=50.0, log_probs=20, **options)
    assert batch.ids == made.ids


# --- states and their models --------------------------------------------------------------------


def test_a_state_of_another_model_is_refused_everywhere(path, generator, tmp_path, tokenizer):
    config = load_checkpoint(path).config
    model = build_model(config, seed=9)
    save_checkpoint(tmp_path / "other.phi", model, tokenizer=tokenizer.to_bytes())
    same = load(path).read("The bear")  # of another copy in memory
    expected = generator.generate("The bear was", seed=2)
    assert generator.generate(" was", seed=2, state=same) == expected
    assert generator.generate_batch([" was"], seed=2, state=same) == [expected]
    state = load(tmp_path / "other.phi").read("The bear")
    for use in (generator.generate, generator.read):
        with pytest.raises(ModelError, match="another model's"):
            use(" was", state=state)
    with pytest.raises(ModelError, match="another model's"):
        generator.generate_batch([" was"], state=state)


def test_a_state_of_no_text_comes_back(generator, tmp_path):
    generator.new_step().save_state(tmp_path / "empty")
    step = generator.new_step()
    step.prefill([1, 2, 3])
    step.load_state(tmp_path / "empty")
    assert step.position == 0
    assert np.array_equal(step(5), generator.new_step()(5))


def test_a_cleared_slot_is_as_new_and_touches_what_it_used_alone(path):
    model = load_checkpoint(path).model
    weights = fold(model.config, model.parameters)
    batch = new_batch(weights, 1)
    slot = batch.add(list(range(1, 41)))  # beyond the window of 32
    batch.remove(slot)
    again = batch.add([7, 8])
    fresh = new_batch(weights, 1)
    fresh.add([7, 8])
    assert np.array_equal(batch.logits[again], fresh.logits[0])


def test_a_stop_string_that_the_end_completes_is_why_it_ends(tmp_path, make_model, byte_tokenizer):
    model = make_model(1, vocab_size=byte_tokenizer.n_vocab)
    save_checkpoint(tmp_path / "bytes.phi", model, tokenizer=byte_tokenizer.to_bytes())
    generator = load(tmp_path / "bytes.phi")
    (half,) = (i for i, t in enumerate(byte_tokenizer.vocabulary.tokens) if t == b"\xc3")
    made = generator.complete("a", max_tokens=1, stop="\ufffd", logit_bias={half: 100})
    assert (made.ids, made.text, made.finish) == ([half], "", "stop")
