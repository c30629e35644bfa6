"""The phi-infer command as a user meets it: text, JSON, and one line for a mistake."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

import phi_infer
from phi_infer import load
from phi_model import save_checkpoint

PROGRAM = Path(sysconfig.get_path("scripts")) / "phi-infer"


def run(*args, **options):
    environment = os.environ | {
        "OPENBLAS_NUM_THREADS": "1",
        "COLUMNS": "100",
        "PYTHONWARNINGS": "error",
        "PYTHONUTF8": "1",
    }
    settings = {"capture_output": True, "encoding": "utf-8", "timeout": 120} | options
    return subprocess.run([str(PROGRAM), *map(str, args)], env=environment, check=False, **settings)


def refused(done, *words, code=1):
    """One line on stderr, with these words in it, and nothing else that alarms."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("phi-infer: error: ")
    for word in words:
        assert word in lines[0]
    assert not done.stdout


def test_generate_shows_prompt_and_text(checkpoint):
    done = run("generate", checkpoint, "--prompt", "Der Bär", "--seed", 3, "--max-tokens", 20)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    expected = load(checkpoint).generate("Der Bär", seed=3, max_tokens=20)
    assert done.stdout == f"Der Bär{expected}\n"


def test_generate_json_and_samples(checkpoint):
    done = run(
        *("generate", checkpoint, "--prompt", "The bear", "--seed", 5, "--max-tokens", 12),
        *("--temperature", 1.1, "--top-k", 40, "--top-p", 0.95, "--min-p", 0.01),
        *("--repeat-penalty", 1.1, "--stop", "glad", "--stop", "zzz"),
        *("--num-samples", 3, "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    result = json.loads(done.stdout)
    assert result["prompt"] == "The bear"
    assert [s["seed"] for s in result["samples"]] == [5, 6, 7]
    for one in result["samples"]:
        expected = load(checkpoint).generate(
            "The bear",
            seed=one["seed"],
            max_tokens=12,
            temperature=1.1,
            top_k=40,
            top_p=0.95,
            min_p=0.01,
            repeat_penalty=1.1,
            stop=["glad", "zzz"],
        )
        assert one["text"] == expected


def test_samples_as_text_and_random_seeds(checkpoint):
    done = run("generate", checkpoint, "--num-samples", 2, "--max-tokens", 30)
    assert done.returncode == 0, done.stderr
    assert "\n---\n" in done.stdout
    other = run("generate", checkpoint, "--num-samples", 2, "--max-tokens", 30)
    assert other.stdout != done.stdout


def test_inspect(checkpoint):
    done = run("inspect", checkpoint, "--json")
    facts = json.loads(done.stdout)
    assert facts["step"] == 7
    assert facts["vocab_size"] == 300
    assert facts["file_bytes"] == checkpoint.stat().st_size
    assert facts["parameters"] > facts["non_embedding_parameters"] > 0
    plain = run("inspect", checkpoint)
    assert plain.returncode == 0
    assert re.search(r"n_layer +2\n", plain.stdout)


def test_generate_json_tells_how_each_text_ended_and_log_probabilities(checkpoint):
    options = ("--prompt", "The bear", "--seed", 5, "--temperature", 0, "--log-probs", 2)
    penalties = ("--frequency-penalty", 0.5, "--presence-penalty", 0.2, "--logit-bias", "12=-9.5")
    done = run("generate", checkpoint, *options, *penalties, "--max-tokens", 9, "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["samples"]
    expected = load(checkpoint).complete(
        "The bear",
        max_tokens=9,
        temperature=0,
        frequency_penalty=0.5,
        presence_penalty=0.2,
        logit_bias={12: -9.5},
        log_probs=2,
    )
    assert (found["text"], found["finish"]) == (expected.text, expected.finish)
    assert found["tokens"] == len(found["log_probs"]) == len(expected.ids)
    for entry, choice in zip(found["log_probs"], expected.choices, strict=True):
        assert (entry["id"], entry["log_prob"]) == (choice.id, choice.log_prob)
        assert [(a["id"], a["log_prob"]) for a in entry["alternatives"]] == choice.alternatives


def test_a_state_goes_on_where_a_text_ended(checkpoint, tmp_path):
    state = tmp_path / "text.state"
    options = ("--seed", 3, "--temperature", 0, "--logit-bias", "299=-100")
    whole = run("generate", checkpoint, "--prompt", "The bear", *options, "--max-tokens", 24)
    first = run(
        *("generate", checkpoint, "--prompt", "The bear", *options, "--max-tokens", 10),
        *("--save-state", state),
    )
    second = run("generate", checkpoint, "--from-state", state, *options, "--max-tokens", 14)
    assert second.returncode == 0, second.stderr
    assert whole.stdout == first.stdout.removesuffix("\n") + second.stdout
    state.write_bytes(b"?" + state.read_bytes())
    refused(run("generate", checkpoint, "--from-state", state), "text.state", "not a saved state")
    refused(run("generate", checkpoint, "--from-state", tmp_path / "no"), "no such file")


def test_score(checkpoint, tmp_path):
    expected = load(checkpoint).score("Der Bär", end=True)
    done = run("score", checkpoint, "--text", "Der Bär", "--end", "--tokens", "--json")
    found = json.loads(done.stdout)
    assert found["ids"] == expected.ids
    assert found["log_probs"] == expected.log_probs
    assert found["loss"] == expected.loss
    assert found["bits_per_byte"] == expected.bits_per_byte
    (tmp_path / "t.txt").write_text("Der Bär", encoding="utf-8")
    plain = run("score", checkpoint, tmp_path / "t.txt", "--end")
    assert f"{expected.loss:.4f} nats a token" in plain.stdout
    piped = run("score", checkpoint, "--end", "--tokens", input="Der Bär")
    assert piped.stdout.endswith(plain.stdout)
    assert len(piped.stdout.splitlines()) == len(plain.stdout.splitlines()) + len(expected.ids)


def test_mistakes_of_score(checkpoint, tmp_path):
    refused(run("score", checkpoint, "--text", ""), "nothing to score")
    refused(run("score", checkpoint, tmp_path / "no.txt"), "no.txt", "no such file")
    refused(run("score", checkpoint, checkpoint, "--text", "x"), "not both")
    refused(run("score", checkpoint, checkpoint), "random.phi", "not UTF-8")


@pytest.mark.parametrize(
    ("to", "name"),
    [("phi", "new.phi"), ("safetensors", "hf"), ("gguf", "m.gguf"), ("llama2c", "model.bin")],
)
def test_convert_then_generate_and_inspect(to, name, checkpoint, tmp_path):
    target = tmp_path / name
    done = run("convert", checkpoint, target, "--to", to)
    assert done.returncode == 0, done.stderr
    assert all(Path(line).is_file() for line in done.stdout.splitlines())
    options = ("--prompt", "The bear", "--temperature", 0, "--max-tokens", 20)
    texts = {run("generate", path, *options).stdout for path in (checkpoint, target)}
    assert len(texts) == 1
    assert len(texts.pop()) > 20
    facts = json.loads(run("inspect", target, "--json").stdout)
    assert facts["dtypes"] == "float32"
    assert facts["vocab_size"] == 300


def test_mistakes_of_convert(checkpoint, tmp_path):
    target = tmp_path / "x"
    refused(run("convert", checkpoint, target, "--to", "onnx"), "'onnx'", "choose one of phi")
    refused(run("convert", checkpoint, target, "--to", "phi", "--dtype", "int4"), "'int4'")
    refused(run("convert", checkpoint, target, "--to", "llama2c", "--dtype", "int8"), "int8")
    refused(run("convert", checkpoint, target), "--to", code=2)
    refused(run("convert", tmp_path / "no.phi", target, "--to", "phi"), "no.phi", "no such file")
    refused(run("convert", checkpoint, tmp_path / "no" / "x", "--to", "gguf"), "no such file")
    assert [p.name for p in tmp_path.iterdir()] == ["random.phi"]


def test_bench(checkpoint):
    sizes = ("--tokens", 8, "--prompt-tokens", 5, "--batch", 2, "--rounds", 1)
    done = run("bench", checkpoint, *sizes, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["tokens"], found["prompt_tokens"], found["batch"]) == (8, 5, 2)
    rates = [name for name in found if name.endswith("tokens_per_second")]
    assert len(rates) == 3
    assert all(found[name] > 0 for name in (*rates, "load_ms", "first_token_ms"))
    plain = run("bench", checkpoint, *sizes)
    assert "batch of 2" in plain.stdout
    refused(run("bench", checkpoint, "--batch", 0), "batch is 0; it must be 1 or more")


@pytest.mark.parametrize(
    "args",
    [
        *(["--help"], ["generate", "--help"], ["inspect", "--help"], ["score", "--help"]),
        *(["convert", "--help"], ["bench", "--help"], []),
    ],
)
def test_help(args):
    done = run(*args)
    text = done.stdout + done.stderr
    assert done.returncode == (0 if args else 2)
    assert "Traceback" not in text
    wanted = {
        "generate": [
            *("--prompt", "--max-tokens", "--temperature", "--top-k", "--top-p", "--min-p"),
            *("--repeat-penalty", "--stop", "--seed", "--num-samples", "--json", "Example"),
            *("--frequency-penalty", "--presence-penalty", "--logit-bias", "--log-probs"),
            *("--context", "--from-state", "--save-state"),
        ],
        "inspect": ["--json", ".phi"],
        "score": ["--text", "--end", "--tokens", "--json", "Example"],
        "bench": ["--tokens", "--batch", "--rounds", "--json", "Example"],
        "convert": ["--to", "--dtype", "safetensors", "gguf", "llama2c", "Example"],
    }.get(
        args[0] if args else "", ["generate", "score", "convert", "inspect", "bench", "--version"]
    )
    for word in wanted:
        assert word in text


def test_version():
    done = run("--version")
    assert done.stdout == f"phi-infer {phi_infer.__version__}\n"
    assert done.returncode == 0


def test_missing_file(tmp_path):
    path = tmp_path / "missing.phi"
    refused(run("generate", path), str(path), "no such file")
    refused(run("inspect", path), str(path), "no such file")


def test_a_folder_instead_of_a_file(tmp_path):
    refused(run("generate", tmp_path), str(tmp_path), "folder")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_checkpoint(checkpoint, share):
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(len(content) * share)])
    refused(run("generate", checkpoint), "random.phi")
    assert [p.name for p in checkpoint.parent.iterdir()] == ["random.phi"]


@pytest.mark.parametrize("place", [3, 500, -40])
def test_a_flipped_bit(checkpoint, place):
    content = bytearray(checkpoint.read_bytes())
    content[place] ^= 4
    checkpoint.write_bytes(content)
    refused(run("generate", checkpoint), "random.phi")


def test_a_text_file_is_not_a_checkpoint(tmp_path):
    path = tmp_path / "story.txt"
    path.write_text("Once upon a time")
    refused(run("generate", path), "story.txt", "is it a .phi file?")


def test_a_checkpoint_without_a_tokenizer(tmp_path, make_model):
    path = tmp_path / "mute.phi"
    save_checkpoint(path, make_model())
    refused(run("generate", path), "mute.phi", "holds no tokenizer")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--temperature", -1, "0 or more"),
        ("--top-p", 1.5, "between 0 and 1"),
        ("--max-tokens", -1, "0 or more"),
        ("--num-samples", 0, "1 or more"),
        ("--seed", -1, "between 0 and"),
        ("--stop", "", "stop string is empty"),
        ("--context", "slide", "it must be window or stop"),
        ("--frequency-penalty", 3, "between -2 and 2"),
        ("--presence-penalty", -3, "between -2 and 2"),
        ("--logit-bias", "17", "no ID=VALUE"),
        ("--logit-bias", "a=1", "no ID=VALUE"),
        ("--logit-bias", "300=1", "ids go from 0 to 299"),
        ("--log-probs", 3, "add it"),
    ],
)
def test_settings_out_of_range(checkpoint, option, value, words):
    refused(run("generate", checkpoint, option, value), words)


def test_a_wrong_command_line(checkpoint):
    refused(run("generate", checkpoint, "--top-k", "many"), "--top-k", "many", code=2)
    refused(run("generate", checkpoint, "--nonsense"), "--nonsense", code=2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_output_to_a_full_device(checkpoint, extra):
    with open("/dev/full", "w") as full:
        done = run(
            *("generate", checkpoint, "--max-tokens", 5, *extra),
            stdout=full,
            stderr=subprocess.PIPE,
            capture_output=False,
        )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "no space left" in done.stderr


def test_a_reader_that_goes_away(checkpoint):
    process = subprocess.Popen(
        [str(PROGRAM), "generate", str(checkpoint), "--max-tokens", "100000", "--num-samples", "9"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert process.stdout
    assert process.stderr
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(timeout=120) == 141
    assert process.stderr.read() == b""
    process.stderr.close()
