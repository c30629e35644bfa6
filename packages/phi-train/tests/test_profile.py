"""The profile: rows that add up, products counted by hand, a model that is left as it was."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import phi_model.layer
from phi_model import ModelConfig, build_model, save_checkpoint
from phi_train import cli
from phi_train.profile import profile
from phi_train.profile_clock import Clock
from phi_train.profile_peak import gemm_peak

SHAPE = ModelConfig(vocab_size=80, seq_len=24, n_layer=3, n_head=2, n_embd=16)
ROWS, LENGTH = 2, 24


def small(config=SHAPE):
    return build_model(config, seed=1)


def batch():
    ids = np.random.default_rng(0).integers(80, size=(ROWS, LENGTH + 1))
    return ids[:, :-1], ids[:, 1:]


def everything():
    """All that the modules of phi_model hold."""
    names = [name for name in sys.modules if name.split(".")[0] == "phi_model"]
    return {(name, key): value for name in names for key, value in vars(sys.modules[name]).items()}


@pytest.fixture(scope="module")
def found():
    return profile(small(), batch_size=ROWS, seq_len=LENGTH, steps=4)


def test_the_rows_add_up_to_the_step(found):
    assert sum(row.seconds for row in found.rows) == pytest.approx(found.seconds, rel=1e-9)
    assert sum(row.share for row in found.rows) == pytest.approx(1, rel=1e-9)
    assert all(row.seconds > 0 for row in found.rows)
    assert [row.phase for row in found.rows if row.phase == "other"] == ["other"]
    assert found.tokens == ROWS * LENGTH


def test_products_are_counted(found):
    """Two operations for each multiply-add of every matrix, three times: forward and twice back."""
    c, f, v, n = 16, 64, 80, ROWS * LENGTH
    sizes = {"attention.qkv": 3 * c * c, "attention.out": c * c, "mlp.gate_up": 2 * f * c}
    sizes |= {"mlp.down": f * c}
    flops = {(row.phase, row.op): row.flops for row in found.rows}
    calls = {(row.phase, row.op): row.calls for row in found.rows}
    for name, size in sizes.items():
        ways = [("forward", name)]
        ways += [("backward", f"{name}, by inputs"), ("backward", f"{name}, by weights")]
        for way in ways:
            assert flops[way] == 2 * size * n * SHAPE.n_layer
            assert calls[way] == SHAPE.n_layer
    for way in (
        ("forward", "head"),
        ("backward", "head, by inputs"),
        ("backward", "head, by weights"),
    ):
        assert flops[way] == 2 * v * c * n
    # of queries with keys and weights with values, one block of the length; and the sums' ones
    scores = 2 * LENGTH * LENGTH * 8 * ROWS * SHAPE.n_head * SHAPE.n_layer
    sums = 2 * LENGTH * LENGTH * ROWS * SHAPE.n_head * SHAPE.n_layer
    assert flops["forward", "attention"] in (2 * scores, 2 * scores + sums)
    assert flops["backward", "attention_backward"] >= 4 * scores
    assert found.flops == pytest.approx(sum(flops.values()))


def test_time_is_charged_to_the_op_that_takes_it(monkeypatch):
    """A swiglu that dawdles: its own row has the time, what called it does not."""
    quick = phi_model.layer.swiglu

    def slow(*args, **kwargs):
        time.sleep(0.03)
        return quick(*args, **kwargs)

    slow.__name__, slow.__module__ = "swiglu", "phi_model.swiglu"
    monkeypatch.setattr(phi_model.layer, "swiglu", slow)
    rows = profile(small(), batch_size=ROWS, seq_len=LENGTH, steps=2).rows
    spent = {(row.phase, row.op): row.seconds for row in rows}
    assert spent["forward", "swiglu"] >= 0.09
    assert sum(spent.values()) - spent["forward", "swiglu"] < 0.09


def test_gradients_are_the_same_under_the_clock():
    model, twin = small(), small()
    clock = Clock(model.parameters, model.gradients)
    with clock.installed():
        loss = model.loss_and_grad(*batch())
    assert loss == twin.loss_and_grad(*batch())
    assert np.array_equal(model.gradients.flat, twin.gradients.flat)
    assert clock.take()
    assert clock.take() == {}


def test_everything_is_put_back():
    model = small()
    before = everything()
    profile(model, batch_size=ROWS, seq_len=LENGTH, steps=1)
    assert everything() == before
    clock = Clock(model.parameters, model.gradients)

    def fail():
        with clock.installed():
            assert everything() != before
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert everything() == before


def test_every_op_of_the_layer_is_seen():
    """Each function that phi_model.layer has from elsewhere is timed, this shape using them all."""
    model = small(replace(SHAPE, qk_norm=True))
    used = {
        name
        for name, value in vars(phi_model.layer).items()
        if inspect.isfunction(value) and value.__module__.startswith("phi_model.")
    }
    assert {"attention", "swiglu_backward", "qk_norm", "rotate"} <= used
    clock = Clock(model.parameters, model.gradients)
    with clock.installed():
        model.loss_and_grad(*batch())
    assert used <= {op for _, op in clock.take()}


def test_another_kind_of_model():
    shape = ModelConfig.preset("rwkv7-100k", vocab_size=80, n_layer=1, seq_len=16)
    before = everything()
    rows = profile(small(shape), batch_size=1, steps=2).rows
    assert everything() == before
    assert {("forward", "time_mix"), ("backward", "time_mix_backward")} <= {
        (row.phase, row.op) for row in rows
    }


def test_the_peak_is_that_of_a_product():
    assert 1e8 < gemm_peak(size=128, seconds=0.02) < 1e13


@pytest.fixture
def call(monkeypatch, capsys):
    def invoke(*args):
        monkeypatch.setattr("warnings.showwarning", lambda *_: None)  # main changes it
        monkeypatch.setattr(sys, "argv", ["phi-train", "profile", *map(str, args)])
        with pytest.raises(SystemExit) as leave:
            cli.main()
        said = capsys.readouterr()
        return subprocess.CompletedProcess(args, leave.value.code, said.out, said.err)

    return invoke


def test_the_command(call):
    small_one = ("--preset", "gpt-1k", "--batch-size", 2, "--seq-len", 16, "--steps", 2)
    done = call(*small_one, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["tokens"] == 32
    assert sum(row["seconds"] for row in answer["rows"]) == pytest.approx(answer["seconds"])
    plain = call(*small_one, "--optimizer", "lion").stdout
    assert "gpt-1k, 2 x 16 tokens, one worker" in plain
    assert "clip and lion" in plain
    assert "of this machine's" in plain
    assert "mlp.down, by weights" in plain


def test_a_checkpoint(call, tmp_path):
    save_checkpoint(tmp_path / "model.phi", small(), step=0)
    before = (tmp_path / "model.phi").read_bytes()
    done = call(tmp_path / "model.phi", "--batch-size", 1, "--steps", 1)
    assert "1 x 24 tokens" in done.stdout
    assert (tmp_path / "model.phi").read_bytes() == before


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--preset", "gpt-2"], "no preset is called 'gpt-2'"),
        (["--batch-size", 0], "--batch-size is 0"),
        (["--seq-len", 0], "--seq-len is 0"),
        (["--steps", 0], "--steps is 0"),
        (["--optimizer", "none"], "no optimiser is called 'none'"),
        (["missing.phi"], "missing.phi"),
    ],
)
def test_mistakes_are_one_line(call, args, word):
    done = call(*args)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert word in done.stderr
