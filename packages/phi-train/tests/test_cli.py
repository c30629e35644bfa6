"""The phi-train command as a user meets it, from the first run to every way of going wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import phi_train
from phi_model import load_checkpoint, save_checkpoint
from phi_train import cli, train

PROGRAM = Path(sysconfig.get_path("scripts")) / "phi-train"
ENVIRONMENT = os.environ | {
    "OPENBLAS_NUM_THREADS": "1",
    "COLUMNS": "100",
    "PYTHONUTF8": "1",
    "PYTHONWARNINGS": "error::RuntimeWarning,error::ResourceWarning",
}


CLOCKS = {"seconds", "data", "model", "optimizer"}  # of a line: how long its step took


def run(*args, **options):
    settings = {"capture_output": True, "encoding": "utf-8", "timeout": 120} | options
    return subprocess.run([str(PROGRAM), *map(str, args)], env=ENVIRONMENT, check=False, **settings)


@pytest.fixture
def call(monkeypatch, capsys):
    """run() without a process of its own: for the many ways of going wrong."""

    def invoke(*args, cwd=None):
        if cwd is not None:
            monkeypatch.chdir(cwd)
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main changes it
        monkeypatch.setattr(sys, "argv", [str(PROGRAM), *map(str, args)])
        with pytest.raises(SystemExit) as leave:
            cli.main()
        said = capsys.readouterr()
        return subprocess.CompletedProcess(args, leave.value.code, said.out, said.err)

    return invoke


def refused(done, *words, code=1):
    """One line on stderr with these words in it, no traceback, an exit code that is not 0."""
    assert done.returncode == code, (done.stdout, done.stderr)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("phi-train: error: ")
    for word in words:
        assert str(word) in lines[0]


def left(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


@pytest.fixture
def config(settings, tmp_path):
    """A config.toml for --config."""

    def write(**changes):
        path = tmp_path / "settings.toml"
        path.write_text(settings(**changes).to_toml())
        return path

    return write


@pytest.fixture(scope="module")
def finished(tmp_path_factory, stories):
    """A finished run, made by the command line: (folder of all, what it printed)."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "train.txt").write_text("<|endoftext|>".join(stories()))
    (folder / "valid.txt").write_text("<|endoftext|>".join(stories(10, seed=5)))
    done = run(
        *("run", "--data", "train.txt", "--valid", "valid.txt", "--preset", "gpt-1k"),
        *("--steps", 20, "--vocab-size", 280, "--batch-size", 2, "--seq-len", 16),
        *("--learning-rate", 0.01, "--schedule", "linear", "--grad-accum", 2, "--seed", 3),
        *("--workers", 1, "--optimizer", "adamw", "--out", "first"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder, done.stdout


def test_run_tells_what_it_does_and_what_came_of_it(finished):
    folder, said = finished
    for words in ("280", "gpt-1k", "held-out loss", "unigram", "this model", "bits a byte"):
        assert words in said
    assert "phi-infer generate first/best.phi" in said
    assert {"best.phi", "config.toml", "last.phi", "metrics.jsonl"} <= set(left(folder / "first"))
    kept = phi_train.TrainConfig.read(folder / "first/config.toml")
    wanted = {"steps": 20, "grad_accum": 2, "learning_rate": 0.01, "seed": 3, "workers": "1"}
    assert kept | wanted == kept


def test_eval(finished, call):
    folder, said = finished
    done = run("eval", "first/last.phi", "--data", "valid.txt", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {"loss", "bits_per_byte", "perplexity", "tokens"} <= set(result)
    assert (result["step"], result["documents"]) == (20, 10)
    assert f"{result['loss']:.4f}" in said
    assert f"{result['bits_per_byte']:.4f} bits a byte" in said
    plain = call("eval", "first/last.phi", "--data", "valid.txt", cwd=folder)
    assert f"{result['loss']:.4f} nats a token" in plain.stdout
    other = call(
        "eval", "first/last.phi", "--data", "valid.txt", "--seq-len", 5, "--json", cwd=folder
    )
    assert json.loads(other.stdout)["loss"] != result["loss"]


def test_baselines(finished, call):
    folder, said = finished
    texts = ("--data", "train.txt", "--valid", "valid.txt", "--tokenizer", "first/tokenizer.json")
    done = run("baselines", *texts, "--order", 4, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    names = {"uniform", "unigram", "bigram", "trigram", "4-gram"}
    assert set(result) == {*names, "bits_per_byte", "tokens"}
    assert set(result["bits_per_byte"]) == names
    assert f"{result['trigram']:.4f}" in said
    plain = call("baselines", *texts[:2], *texts[4:], cwd=folder)  # measured on a part of --data
    assert plain.returncode == 0, plain.stderr
    assert "trigram" in plain.stdout


def test_check_gradients(finished, call):
    folder, _ = finished
    done = run("check-gradients", "first/best.phi", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"]
    assert all(row["error"] < 1e-7 for row in result["parameters"])
    plain = call("check-gradients", "--preset", "gpt-1k")
    assert plain.returncode == 0
    assert "embedding" in plain.stdout
    assert "all within 1e-07 of finite differences" in plain.stdout


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["run", "eval", "baselines", "check-gradients", "--version"]),
        (
            ["run"],
            [
                *("--data", "--valid", "--preset", "gpt-30m", "--steps", "--tokens", "--flops"),
                *("--learning-rate", "--schedule", "cosine", "--batch-size", "--seq-len"),
                *("--grad-accum", "--tokenizer", "--vocab-size", "--workers", "--seed", "--out"),
                *("--resume", "--config", "Example", "--seconds", "--init-from", "--optimizer"),
                *("schedule-free", "--batches", "epochs", "--ema", "--patience", "--eval-tokens"),
                *("--sample-every", "--prompt", "--baseline-order", "--keep", "--guard"),
            ],
        ),
        (["eval"], ["--data", "--seq-len", "--json", "Example"]),
        (["baselines"], ["--data", "--valid", "--tokenizer", "--order", "--json", "Example"]),
        (["check-gradients"], ["--preset", "--seed", "--json", "Example"]),
    ],
)
def test_help(call, command, words):
    done = call(*command, "--help")
    assert done.returncode == 0
    assert not [word for word in words if word not in done.stdout]


def test_version():
    assert run("--version").stdout == f"phi-train {phi_train.__version__}\n"


def test_interrupted_and_resumed_equals_never_interrupted(call, settings, config, tmp_path):
    steps = 300
    path = config(steps=steps, checkpoint_every=1000, eval_every=150)
    whole = call("run", "--config", path, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr

    process = subprocess.Popen(
        [str(PROGRAM), "run", "--config", str(path)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = Path(settings().out)
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= 20):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors == "phi-train: interrupted\n"
    assert f"phi-train run --resume --out {folder}" in said
    stopped = load_checkpoint(folder / "last.phi").step
    assert 20 <= stopped < steps
    assert f"stopped after step {stopped}; everything is saved" in said

    resumed = call("run", "--resume", "--out", folder)
    assert resumed.returncode == 0, resumed.stderr
    assert f"after step {stopped}" in resumed.stdout
    for name in ("last.phi", "best.phi", "tokenizer.json"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    one, two = (
        [
            {k: v for k, v in json.loads(line).items() if k not in CLOCKS}
            for line in path.read_text().splitlines()
        ]
        for path in (metrics, tmp_path / "whole/metrics.jsonl")
    )
    assert one == two


def test_a_budget_given_goes_over_the_one_in_the_file(call, config, tmp_path):
    path = config(tokens=640, steps=500)
    done = call("run", "--config", path, "--steps", 5)
    assert done.returncode == 0, done.stderr
    assert load_checkpoint(tmp_path / "run/last.phi").step == 5


def test_every_new_thing_at_once(finished, call, tmp_path):
    """Fine-tunes the finished model by the clock, and continues it as long again."""
    folder, _ = finished
    start = ("--init-from", folder / "first/best.phi", "--out", tmp_path / "tuned")
    done = call(
        *("run", "--data", folder / "valid.txt", *start, "--seconds", 0.3, "--keep", 1),
        *("--optimizer", "muon", "--batches", "epochs", "--ema", 0.9, "--workers", 1),
        *("--eval-every", 10, "--eval-tokens", 0, "--sample-every", 10, "--prompt", "the bear"),
        *("--checkpoint-every", 10, "--baseline-order", 5, "--batch-size", 2),
    )
    assert done.returncode == 0, done.stderr
    for words in (f"weights of {folder / 'first/best.phi'}", "5-gram", "this model"):
        assert words in done.stdout
    kept = phi_train.TrainConfig.read(tmp_path / "tuned/config.toml")
    assert (kept["seconds"], kept["optimizer"], kept["seq_len"]) == (0.3, "muon", 16)
    assert kept["model"]["n_embd"] == 8
    assert len(list((tmp_path / "tuned/checkpoints").iterdir())) == 1
    lines = [json.loads(li) for li in (tmp_path / "tuned/metrics.jsonl").read_text().splitlines()]
    assert {"the bear"} == {line["prompt"] for line in lines if "sample" in line}
    longer = call("run", "--resume", "--out", tmp_path / "tuned", "--seconds", 0.5)
    assert longer.returncode == 0, longer.stderr
    more = load_checkpoint(tmp_path / "tuned/last.phi")
    assert more.step > max(line["step"] for line in lines)
    assert more.metadata["elapsed"] >= 0.5


def test_resuming_a_finished_run(finished, call):
    folder, said = finished
    before = {name: (folder / name).read_bytes() for name in left(folder)}
    done = call("run", "--resume", "--out", "first", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("first is finished: all of its 20 steps are made")
    assert done.stdout.splitlines()[1:] == said[said.index("\nheld-out loss,") :].splitlines()
    assert {name: (folder / name).read_bytes() for name in left(folder)} == before


def test_a_folder_in_which_another_run_goes_on(settings, config):
    path = config(steps=200_000, checkpoint_every=0)
    command = [str(PROGRAM), "run", "--config", str(path), "--resume"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    first = subprocess.Popen(command, env=ENVIRONMENT, **quiet)
    try:
        deadline = time.monotonic() + 60
        while not Path(settings().out, "metrics.jsonl").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        refused(run("run", "--config", path, "--resume"), settings().out, f"process {first.pid}")
    finally:
        first.kill()
        first.wait()


# mistakes


def test_nothing_given(call):
    refused(call("run"), "no data", "--data")
    refused(call("run", "--resume"), "--resume needs the run's folder", "--out")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--vocab-size", 100], ["vocab_size 100 is too small", "257"]),
        (["--preset", "gpt-2"], ["no preset is called 'gpt-2'", "gpt-1m"]),
        (["--batch-size", 0], ["batch_size is 0", "1 or more"]),
        (["--steps", 0], ["steps is 0"]),
        (["--steps", 5, "--tokens", 100], ["--steps and --tokens", "give one"]),
        (["--tokens", 0], ["--tokens is 0", "above 0"]),
        (["--seconds", 0], ["--seconds is 0", "above 0"]),
        (["--seconds", 5, "--tokens", 100], ["--tokens and --seconds", "give one"]),
        (["--seconds", -1], ["seconds is -1"]),
        (["--batches", "all"], ["batches is 'all'", "epochs"]),
        (["--ema", 1], ["ema is 1.0"]),
        (["--baseline-order", 6], ["baseline_order is 6", "between 1 and 5"]),
        (["--init-from", "missing.phi"], ["--init-from brings", "leave out --vocab-size"]),
        (["--learning-rate", "nan"], ["learning_rate is nan"]),
        (["--flops", "inf"], ["flops is inf"]),
        (["--seed", -1], ["seed is -1"]),
        (["--workers", "0"], ["workers is '0'"]),
        (["--schedule", "steps"], ["schedule is 'steps'", "cosine"]),
        (["--optimizer", "adam"], ["optimizer is 'adam'", "adamw"]),
        (["--seq-len", 100_000], ["fewer than one window of 100000", "--seq-len"]),
        (["--valid", "missing.txt"], ["missing.txt does not exist"]),
        (["--tokenizer", "missing.json"], ["missing.json", "no such file"]),
        (["--config", "missing.toml"], ["missing.toml", "no such file"]),
        (["--resume", "--data", "", "--out", "nowhere"], ["no data"]),
    ],
)
def test_settings_that_make_no_sense(call, corpus, tmp_path, args, words):
    vocab_size = [] if "--vocab-size" in args else ["--vocab-size", 270]
    done = call("run", "--data", corpus, "--out", "out", *vocab_size, *args, cwd=tmp_path)
    refused(done, *words)
    assert left(tmp_path) == ["stories.txt"]
    assert not (tmp_path / "out").exists()


def test_resuming_where_there_is_no_run(call, tmp_path):
    refused(call("run", "--resume", "--out", tmp_path / "none"), "none holds no run", "--data")
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["text.txt does not exist"]),
        (b"", ["text.txt holds no text"]),
        (b" \n\t ", ["text.txt holds no text"]),
        (b"Once upon a time \xff\xfe", ["text.txt is not UTF-8 text: byte 17 is 0xff"]),
    ],
)
def test_texts_that_cannot_be_used(call, finished, tmp_path, content, words):
    folder, _ = finished
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_bytes(content)
    refused(call("run", "--data", text, "--out", tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()
    refused(call("eval", folder / "first/best.phi", "--data", text), *words)
    tokenizer = ("--tokenizer", folder / "first/tokenizer.json")
    refused(call("baselines", "--data", text, *tokenizer), *words)


def test_checkpoints_that_cannot_be_used(call, finished, tmp_path):
    folder, _ = finished
    good = (folder / "first/last.phi").read_bytes()
    path = tmp_path / "bad.phi"
    data = ("--data", folder / "valid.txt")
    refused(call("eval", path, *data), "bad.phi", "no such file")
    for content in (b"", good[:40], good[: len(good) // 2], good[:-1]):
        path.write_bytes(content)
        refused(call("eval", path, *data), "bad.phi")
    for place in (2, 300, len(good) // 2, len(good) - 9):
        flipped = bytearray(good)
        flipped[place] ^= 16
        path.write_bytes(flipped)
        refused(call("eval", path, *data), "bad.phi")
    refused(call("check-gradients", path), "bad.phi")
    assert left(tmp_path) == ["bad.phi"]


def test_resuming_from_a_damaged_checkpoint_leaves_it_alone(call, finished, tmp_path):
    folder, _ = finished
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    for name in ("config.toml", "metrics.jsonl"):
        (run_folder / name).write_bytes((folder / "first" / name).read_bytes())
    damaged = (folder / "first/last.phi").read_bytes()[:-100]
    (run_folder / "last.phi").write_bytes(damaged)
    before = {name: (run_folder / name).read_bytes() for name in left(run_folder)}
    refused(call("run", "--resume", "--out", run_folder, cwd=folder), "last.phi", "cut short")
    assert {name: (run_folder / name).read_bytes() for name in left(run_folder)} == before


def test_a_folder_that_holds_a_run(call, finished):
    folder, _ = finished
    before = {name: (folder / name).read_bytes() for name in left(folder)}
    done = call("run", "--data", "train.txt", "--out", "first", cwd=folder)
    refused(done, "first already holds a run", "--resume", "--out")
    assert {name: (folder / name).read_bytes() for name in left(folder)} == before


def test_a_diverging_rate(call, config):
    done = call("run", "--config", config(), "--learning-rate", "1e20")
    refused(done, "no longer finite at step", "lower --learning-rate (1e+20 now)")


def test_check_gradients_mistakes(call):
    refused(call("check-gradients", "--preset", "gpt-2"), "no preset is called 'gpt-2'")
    refused(call("check-gradients", "--seed", -1), "--seed is -1")


def test_a_wrong_command_line(call):
    refused(call("run", "--nonsense"), "--nonsense", code=2)
    refused(call("run", "--steps", "many"), "--steps", "many", code=2)
    refused(call("walk"), "walk", code=2)
    refused(call("eval", "x.phi"), "--data", code=2)


# full disks

resource = pytest.importorskip("resource", reason="limits on files are a matter of Unix")


def _limited(size):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _sound(folder):
    """No temporary file, no half line, and every checkpoint whole."""
    for name in left(folder):
        assert not name.endswith("~")
        assert not Path(name).name.startswith(".")
        if name.endswith(".phi"):
            load_checkpoint(folder / name)
    metrics = folder / "metrics.jsonl"
    if metrics.exists():
        content = metrics.read_text()
        assert content.endswith("\n") or not content
        return [json.loads(line) for line in content.splitlines()]
    return []


BEGUN = ["config.toml", "environment.json", "metrics.jsonl", "tokenizer.json"]


@pytest.mark.parametrize(
    ("room_for", "at_fault", "kept"),
    [
        (None, "tokenizer.json", []),
        ("tokenizer.json", "metrics.jsonl", BEGUN),
        ("metrics.jsonl", "best.phi", BEGUN),
        ("best.phi", "checkpoints/step-000030.phi", ["best.phi", *BEGUN]),
    ],
)
def test_files_that_may_not_grow(settings, config, call, room_for, at_fault, kept):
    """At each size another file of the run is the first that does not fit."""
    changes = {"steps": 60, "checkpoint_every": 30, "eval_every": 30, "vocab_size": 260}
    whole = train(settings("whole", **changes)).folder.path
    size = (whole / room_for).stat().st_size + 500 if room_for else 10
    path = config(**changes)
    done = run("run", "--config", path, preexec_fn=_limited(size))
    folder = Path(settings().out)
    refused(done, folder / at_fault, "the file would grow past the allowed size")
    _sound(folder)
    assert left(folder) == kept
    again = call("run", "--config", path, *(["--resume"] if kept else []))
    assert again.returncode == 0, again.stderr
    assert (folder / "last.phi").read_bytes() == (whole / "last.phi").read_bytes()


def test_a_disk_that_fills_later_leaves_what_was_saved(settings, config):
    """The log outgrows the limit in the middle of a run that already has checkpoints."""
    path = config(steps=2000, checkpoint_every=50, eval_every=40, vocab_size=260, optimizer="adamw")
    done = run("run", "--config", path, preexec_fn=_limited(60_000))
    folder = Path(settings().out)
    refused(done, folder / "metrics.jsonl")
    lines = _sound(folder)
    step = load_checkpoint(folder / "last.phi").step
    assert step >= 50
    assert step <= lines[-1]["step"] < step + 50
    assert load_checkpoint(folder / "best.phi").step <= lines[-1]["step"]
    before = {name: (folder / name).read_bytes() for name in left(folder) if name.endswith("phi")}
    done = run("run", "--resume", "--out", folder, preexec_fn=_limited(20_000))
    refused(done)
    _sound(folder)
    assert before == {
        name: (folder / name).read_bytes() for name in left(folder) if name.endswith("phi")
    }


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_output_to_a_full_device(finished, config):
    folder, _ = finished
    for args in (
        ["run", "--config", config()],
        ["eval", folder / "first/best.phi", "--data", folder / "valid.txt", "--json"],
        ["check-gradients"],
    ):
        with open("/dev/full", "w") as full:
            done = run(*args, stdout=full, stderr=subprocess.PIPE, capture_output=False)
        refused(done, "no space left")


def test_weights_that_are_not_finite_are_no_figure(call, finished, tmp_path):
    folder, _ = finished
    opened = load_checkpoint(folder / "first/best.phi")
    model = opened.build()
    model.parameters["embedding"][...] = np.nan
    save_checkpoint(tmp_path / "nan.phi", model, tokenizer=opened.tokenizer)
    done = call("eval", tmp_path / "nan.phi", "--data", folder / "train.txt", "--json")
    refused(done, "nan.phi has weights that are not finite")
