"""From a checkpoint to text: pieces, whole characters, ends, and what is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from phi_infer import ModelError, Sampling, SamplingError, load, request
from phi_infer.gpt_step import GPTStep
from phi_model import CheckpointError, load_checkpoint, save_checkpoint
from phi_tokenizer import TokenizerError

GREETING = "Grüße, 日本 😀!"


def test_greedy_text_by_brute_force(checkpoint):
    """No cache: the whole text through the model for each token, within its context."""
    generator = load(checkpoint)
    model = load_checkpoint(checkpoint).model
    ids = generator.prompt_ids("The bear")
    start = len(ids)
    while len(ids) < 16:
        token = int(np.argmax(model.logits(ids)[0, -1]))
        if token == generator.tokenizer.eot_token:
            break
        ids.append(token)
    text = generator.generate("The bear", max_tokens=16 - start, temperature=0)
    assert text == generator.tokenizer.decode(ids[start:])


def test_a_prompt_follows_an_end_token(checkpoint):
    generator = load(checkpoint)
    assert generator.prompt_ids("") == [generator.tokenizer.eot_token]
    ids = generator.prompt_ids("<|endoftext|>")
    assert ids.count(generator.tokenizer.eot_token) == 1  # in a prompt it is ordinary text
    assert generator.tokenizer.decode(ids[1:]) == "<|endoftext|>"


@pytest.mark.parametrize("seed", range(4))
def test_pieces_make_the_text(checkpoint, seed):
    generator = load(checkpoint)
    options = {"max_tokens": 60, "temperature": 1.2, "seed": seed}
    pieces = list(generator.stream("Der Bär", **options))
    assert all(pieces)
    assert "".join(pieces) == generator.generate("Der Bär", **options)
    ids = list(
        generator.tokens("Der Bär", max_tokens=60, sampling=Sampling(temperature=1.2, seed=seed))
    )
    assert "".join(pieces) == generator.tokenizer.decode(ids)


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes_make_whole_characters_only(byte_checkpoint, seed):
    generator = load(byte_checkpoint)
    sampling = Sampling(temperature=2.0, seed=seed)
    ids = list(generator.tokens("", max_tokens=120, sampling=sampling))
    pieces = list(generator.stream("", max_tokens=120, temperature=2.0, seed=seed))
    assert len(set(ids)) > 20
    for piece in pieces:
        piece.encode()  # no half of a surrogate pair
    assert "".join(pieces) == generator.tokenizer.decode(ids)


def _says(generator, ids, monkeypatch):
    """Whatever the logits, these tokens are drawn, then the end."""
    script = iter(ids)
    end = generator.tokenizer.eot_token
    monkeypatch.setattr(request, "sample", lambda *_args, **_options: next(script, end))


def test_a_character_appears_with_its_last_byte(byte_checkpoint, monkeypatch):
    generator = load(byte_checkpoint)
    ids = generator.tokenizer.encode(GREETING)
    assert len(ids) == len(GREETING.encode())
    _says(generator, ids, monkeypatch)
    assert list(generator.stream()) == list(GREETING)


def test_a_character_cut_off_at_the_end_becomes_a_replacement(byte_checkpoint, monkeypatch):
    generator = load(byte_checkpoint)
    _says(generator, generator.tokenizer.encode("a😀")[:-1], monkeypatch)
    assert list(generator.stream()) == ["a", "\ufffd"]


@pytest.mark.parametrize(
    ("stop", "shown"),
    [
        (["日本"], "Grüße, "),
        ("日本", "Grüße, "),  # one string is one stop string
        (["\N{GRINNING FACE}!"], "Grüße, 日本 "),
        (["nowhere", "ß"], "Grü"),
        (["G"], ""),
        ([GREETING + "more"], GREETING),
        ([], GREETING),
    ],
)
def test_stop_strings_across_tokens(byte_checkpoint, monkeypatch, stop, shown):
    generator = load(byte_checkpoint)
    _says(generator, generator.tokenizer.encode(GREETING), monkeypatch)
    assert "".join(generator.stream(stop=stop)) == shown


def test_a_stop_string_ends_the_drawing(byte_checkpoint, monkeypatch):
    generator = load(byte_checkpoint)
    drawn = []

    def ids():
        for token in generator.tokenizer.encode("one END two"):
            drawn.append(token)
            yield token

    _says(generator, ids(), monkeypatch)
    assert generator.generate(stop=["END"]) == "one "
    assert len(drawn) == len("one END")


def test_the_end_of_text_token_ends_it(tmp_path, make_model, byte_tokenizer):
    """A model that is made to say `ab` and then end."""
    model = make_model(0, vocab_size=257, tied_head=False)
    model.parameters["head"][...] = 0
    path = tmp_path / "ending.phi"
    save_checkpoint(path, model, tokenizer=byte_tokenizer.to_bytes())
    generator = load(path)
    end = byte_tokenizer.eot_token
    a, b = byte_tokenizer.encode("ab")
    follows = {end: a, a: b, b: end}
    step = GPTStep.__call__
    fed = []

    def scripted(self, token):
        fed.append(token)
        logits = step(self, token)
        logits[follows[token]] = 100
        return logits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GPTStep, "__call__", scripted)
        assert generator.generate("", max_tokens=50, temperature=0.5) == "ab"
        assert fed == [end, a, b]


def test_max_tokens(byte_checkpoint):
    generator = load(byte_checkpoint)
    assert generator.generate("a", max_tokens=0) == ""
    sampling = Sampling(temperature=0)
    ids = list(generator.tokens("a", max_tokens=9, sampling=sampling))
    assert ids == list(generator.tokens("a", max_tokens=40, sampling=sampling))[:9]


def test_a_seed_is_one_text_and_calls_share_nothing(checkpoint):
    generator, again = load(checkpoint), load(checkpoint, verify=False)
    options = {"max_tokens": 40, "temperature": 1.0, "top_k": 50, "top_p": 0.95, "min_p": 0.01}
    one = generator.generate("The", seed=1, **options)
    assert generator.generate("other", seed=9, **options) != one
    assert generator.generate("The", seed=1, **options) == one
    assert again.generate("The", seed=1, **options) == one
    assert generator.generate("The", seed=2, **options) != one


def test_two_streams_side_by_side(checkpoint):
    generator = load(checkpoint)
    first = generator.stream("The", seed=1, max_tokens=30)
    second = generator.stream("Der", seed=2, max_tokens=30)
    mixed = ["", ""]
    for a, b in zip(first, second, strict=False):
        mixed[0] += a
        mixed[1] += b
    assert generator.generate("The", seed=1, max_tokens=30).startswith(mixed[0])
    assert generator.generate("Der", seed=2, max_tokens=30).startswith(mixed[1])


def test_tokens_that_the_tokenizer_lacks_are_never_drawn(tmp_path, make_model, byte_tokenizer):
    path = tmp_path / "wide.phi"
    save_checkpoint(path, make_model(vocab_size=400), tokenizer=byte_tokenizer.to_bytes())
    ids = load(path).tokens("", max_tokens=60, sampling=Sampling(temperature=5.0))
    assert max(ids) < 257


def test_mistakes_are_told_before_any_text(checkpoint):
    generator = load(checkpoint)
    for options, words in [
        ({"max_tokens": -1}, "max_tokens is -1; it must be 0 or more"),
        ({"stop": ["x", ""]}, "a stop string is empty"),
        ({"stop": ""}, "a stop string is empty"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"tmeperature": 1.0}, "no sampling setting is called tmeperature; there are temperature,"),
    ]:
        with pytest.raises(SamplingError, match=words):
            generator.stream("The", **options)  # without taking a piece


def test_a_lone_surrogate_in_a_prompt(checkpoint):
    with pytest.raises(TokenizerError, match="lone surrogate"):
        load(checkpoint).generate("\ud800")


def test_a_checkpoint_without_a_tokenizer(tmp_path, make_model):
    path = tmp_path / "mute.phi"
    save_checkpoint(path, make_model())
    with pytest.raises(ModelError, match=r"mute\.phi holds no tokenizer: save it with"):
        load(path)


def test_a_tokenizer_larger_than_the_model(tmp_path, make_model, tokenizer):
    path = tmp_path / "narrow.phi"
    save_checkpoint(path, make_model(vocab_size=299), tokenizer=tokenizer.to_bytes())
    with pytest.raises(ModelError, match="its tokenizer has 300 tokens, its model only 299"):
        load(path)


def test_a_model_that_diverged_says_so(tmp_path, make_model, tokenizer):
    model = make_model()
    model.parameters["final_norm.gain"][...] = np.nan
    path = tmp_path / "diverged.phi"
    save_checkpoint(path, model, tokenizer=tokenizer.to_bytes())
    with pytest.raises(ModelError, match="not finite"):
        load(path).generate("The", max_tokens=3)


def test_no_start_and_no_prompt(tmp_path, make_model):
    from phi_tokenizer import Tokenizer  # noqa: PLC0415 (only here: one without special tokens)

    path = tmp_path / "startless.phi"
    save_checkpoint(
        path,
        make_model(vocab_size=256),
        tokenizer=Tokenizer.train("abc", vocab_size=256).to_bytes(),
    )
    generator = load(path)
    with pytest.raises(SamplingError, match="give a --prompt"):
        generator.generate("")
    assert generator.generate("abc", max_tokens=3, temperature=0)


def test_any_file_that_a_run_leaves_will_do(checkpoint, tmp_path):
    """The name does not matter, and the file is only read."""
    other = tmp_path / "renamed.bin"
    shutil.copy(checkpoint, other)
    other.chmod(0o400)
    assert load(str(other)).generate("The", max_tokens=3, seed=1) == load(checkpoint).generate(
        "The", max_tokens=3, seed=1
    )


def test_missing_and_damaged(tmp_path, checkpoint):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing.phi")
    whole = checkpoint.read_bytes()
    short = tmp_path / "short.phi"
    short.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"short\.phi is not a sound checkpoint: it is cut"):
        load(short)
