"""The report: what it reads, what it says, and that its drawing shows the figures it was given."""

from __future__ import annotations

import json
import math
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi_train import RunError, cli, train
from phi_train.report import page, read_run, summary
from phi_train.report.curve import Curve, smooth, thin
from phi_train.report.repeat import repeat_command
from phi_train.report.scale import Scale
from phi_train.report.summary import verdict

VOID = {"meta", "link", "input"}


class Markup(HTMLParser):
    """Every element with its attributes, all text, and whether each tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, text):
        self.texts.append(text)

    def named(self, name):
        return [attributes for element, attributes in self.elements if element == name]


def step_line(step, loss, **more):
    fields = {"learning_rate": 0.001, "grad_norm": 0.5, "tokens": step * 64, "seconds": 0.25}
    return {"step": step, "loss": loss} | fields | more


@pytest.fixture
def folder(settings, tmp_path):
    """Makes a run's folder from lines of metrics."""

    def make(*lines, name="made", tail="", **changes):
        path = tmp_path / name
        path.mkdir()
        (path / "config.toml").write_text(settings(name, **changes).to_toml())
        content = "".join(json.dumps(line) + "\n" for line in lines) + tail
        (path / "metrics.jsonl").write_text(content)
        return path

    return make


FINAL = {
    "step": 24,
    "final_loss": 2.0,
    "bits_per_byte": 1.0,
    "valid_tokens": 500,
    "floor": 0.75,
    "gap": 0.25,
    "baselines": {"uniform": 5.6, "unigram": 4.0, "bigram": 3.0, "trigram": 1.5},
}


# curves


def test_smoothing_is_the_mean_of_a_stretch():
    values = np.random.default_rng(0).normal(size=700)
    smoothed = smooth(Curve(np.arange(1.0, 701), values)).values
    for i in (0, 1, 7, 60, 350, 698, 699):
        reach = min(14, i // 5)  # a fiftieth of 700
        expected = math.fsum(values[max(0, i - reach) : i + reach + 1]) / len(
            values[max(0, i - reach) : i + reach + 1]
        )
        assert smoothed[i] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("log", [False, True])
def test_thinning_keeps_the_extremes_and_both_ends(log):
    rng = np.random.default_rng(1)
    curve = Curve(np.arange(1.0, 50_001), rng.normal(size=50_000))
    curve.values[31_234], curve.values[77] = 40.0, -40.0
    scale = Scale.around(curve.steps, log=log, tight=True)
    kept = thin(curve, scale.position(curve.steps))
    assert len(kept) <= 1000
    assert {0, 77, 31_234, 49_999} <= set(kept)
    assert np.all(np.diff(kept) > 0)
    if log:  # each decade has its share
        assert sum(kept < 100) >= 60
    assert thin(Curve.of([(1, 1.0), (2, 2.0)]), np.array([0.0, 1.0])).tolist() == [0, 1]


def test_a_curve_of_pairs():
    curve = Curve.of([(3, 1.0), (1, 2.0), (2, math.nan), (4, math.inf), (1, 5.0)])
    assert curve.steps.tolist() == [1, 3]
    assert curve.values.tolist() == [5.0, 1.0]
    assert Curve.of([]).last is None


finite = st.floats(-1e12, 1e12).filter(lambda v: v == 0 or abs(v) > 1e-9)


@given(st.lists(finite, min_size=1, max_size=5), st.booleans(), st.booleans(), st.booleans())
def test_every_scale_holds_its_values_and_has_ticks(values, log, zero, tight):
    scale = Scale.around(values, log=log, zero=zero, tight=tight)
    assert scale.low < scale.high
    held = [v for v in values if v > 0 or not scale.log]
    assert all(-1e-6 <= p <= 1 + 1e-6 for p in scale.position(held))
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 8
    assert all(-1e-6 <= tick.position <= 1 + 1e-6 for tick in ticks)
    assert [t.value for t in ticks] == sorted({t.value for t in ticks})


# reading


def test_a_real_run(settings):
    path = train(settings(steps=24, baselines=True)).folder.path
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    run = read_run(path)
    figures = summary(run)
    assert figures["state"] == "finished"
    assert (figures["step"], figures["total_steps"]) == (24, 24)
    assert run.columns["loss"].values.tolist() == losses
    assert figures["final_loss"] == lines[-1]["final_loss"]
    assert figures["baselines"] == lines[-1]["baselines"]
    assert figures["valid_loss"] == [x["valid_loss"] for x in lines if "valid_loss" in x][-1]
    seconds = sum(line.get("seconds", 0) for line in lines)
    assert figures["tokens_per_second"] == pytest.approx(24 * 64 / seconds, abs=0.1)
    assert run.workers == 1
    assert run.model.vocab_size == 270
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    Markup(page([run]))


def test_the_floor_in_nats(folder):
    """0.75 of the bits that 2 nats are: 1.5 nats."""
    assert summary(read_run(folder(step_line(24, 2.0), FINAL)))["floor_loss"] == 1.5


@pytest.mark.parametrize(
    ("lines", "tail", "state", "words"),
    [
        ([], "", "stopped", ["No step is recorded"]),
        ([step_line(1, 3.0)], "", "stopped", ["Stopped at step 1 of 24", "not finished"]),
        (
            [step_line(1, 3.0), step_line(2, 2.9)],
            '{"step": 3, "lo',
            "stopped",
            ["step 2 of 24", "1 line of metrics.jsonl"],
        ),
        (
            [step_line(1, 3.0), {"step": 1, "valid_loss": 2.5, "valid_tokens": 200}],
            "",
            "stopped",
            ["2.5000 nats a token, on the first 200 tokens"],
        ),
        (
            [step_line(1, 3.0), step_line(2, math.nan)],
            "",
            "diverged",
            ["Diverged", "loss is no longer finite at step 2"],
        ),
        ([step_line(5, 3.0), {**FINAL, "step": 5}], "", "finished", ["Ended early", "5 of 24"]),
        (
            [step_line(24, 3.0), FINAL],
            "",
            "finished",
            ["1.000 nats a token better than the bigram", "0.500 worse than the trigram"],
        ),
        (
            [step_line(i, 3.0 if i < 100 else 3.5) for i in range(1, 300)],
            "",
            "stopped",
            ["training loss rose again"],
        ),
    ],
)
def test_how_a_run_went(folder, lines, tail, state, words):
    run = read_run(folder(*lines, tail=tail))
    assert summary(run)["state"] == state
    said = " ".join(verdict(run))
    assert not [word for word in words if word not in said], said
    markup = Markup(page([run]))
    assert any(said in text for text in markup.texts)


def test_a_running_run_is_told_by_its_lock(folder):
    path = folder(step_line(1, 3.0))
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (path / "run.lock").write_text(f"{sleeper.pid}\n")
    try:
        assert "Still running: step 1 of 24" in verdict(read_run(path))[0]
    finally:
        sleeper.communicate()
    assert summary(read_run(path))["state"] == "stopped"


def test_lines_that_are_no_lines(folder):
    strange = [
        *('{"step": NaN, "loss": 1.0}', "[1, 2]", '{"step": "x", "loss": 1}', "\x00\x01", "null"),
        *('{"loss": 1.0}', '{"step": 3, "groups": [1]}', '{"step": 3, "groups": {"a": 1}}'),
        *('{"step": 3, "sample": 7}', '{"step": 3, "loss": "low"}', '{"step": 3, "loss": true}'),
    ]
    run = read_run(folder(step_line(1, 3.0), FINAL | {"baselines": [1]}, tail="\n".join(strange)))
    assert run.step == 1
    assert run.columns["loss"].values.tolist() == [3.0]
    assert run.samples == ()
    assert run.unreadable == 5
    Markup(page([run]))


@pytest.mark.parametrize("config", ["", "x = [", 'preset = "gpt-2"\nsteps = "many"\n', "steps=3"])
def test_settings_that_cannot_be_understood(folder, config):
    path = folder(step_line(1, 3.0))
    (path / "config.toml").write_text(config)
    Markup(page([read_run(path)]))


def test_what_is_no_run(tmp_path):
    with pytest.raises(RunError, match="none does not exist"):
        read_run(tmp_path / "none")
    with pytest.raises(RunError, match="holds no run"):
        read_run(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file is a file"):
        read_run(tmp_path / "file")


def test_where_the_time_goes(folder):
    parts = {"seconds": 2.0, "model": 1.5, "optimizer": 0.25, "data": 0.05}
    path = folder(step_line(1, 3.0, **parts), step_line(2, 3.0, **parts))
    shares = read_run(path).time_shares
    assert shares == pytest.approx({"model": 0.75, "optimizer": 0.125, "data": 0.025, "other": 0.1})
    assert "model 75.0%, optimizer 12.5%, other 10.0%, data 2.5%" in page([read_run(path)])


# the page

HOSTILE = "<script>alert(1)</script>\x00\ud800 & \"quoted\" 'text' </pre>"


@pytest.fixture
def rich_run(folder):
    """Everything that a log can hold."""
    path = folder(
        *(step_line(i, 4 / i**0.5) for i in range(1, 25)),
        {"step": 12, "valid_loss": 2.5, "valid_tokens": 200},
        *({"step": i, "prompt": HOSTILE, "sample": HOSTILE + str(i)} for i in range(1, 25)),
        {"step": 5, "groups": {HOSTILE: {"grad_norm": 1.0, "update_ratio": 1e-3}}},
        {"step": 9, "groups": {HOSTILE: {"grad_norm": 1.0, "update_ratio": 2e-3}}},
        FINAL | {"baselines": FINAL["baselines"] | {HOSTILE: 2.2}},
        name="<b>& run",
    )
    (path / "environment.json").write_text(
        json.dumps({"cpu": HOSTILE, "packages": {"phi-model": "0.1.0"}, "command": HOSTILE})
    )
    return path


def test_the_page_needs_nothing_else(rich_run):
    markup = Markup(page([read_run(rich_run)]))
    assert {name for name, _ in markup.elements} & {"script", "img", "iframe", "object", "b"} == {
        "b"
    }
    for name, attributes in markup.elements:
        assert not [key for key in attributes if key.startswith("on") or key == "src"], name
        assert "url(" not in attributes.get("style", "")
    assert [link["href"] for link in markup.named("link")] == ["data:,"]
    ids = [a["id"] for _, a in markup.elements if "id" in a]
    assert len(ids) == len(set(ids))
    labels = [a["aria-labelledby"].split() for _, a in markup.elements if "aria-labelledby" in a]
    assert len(labels) >= 6  # a drawing each, of the loss two
    assert {key for keys in labels for key in keys} <= set(ids)


def test_text_of_a_run_stays_text(rich_run):
    markup = Markup(page([read_run(rich_run)]).encode("utf-8", "replace").decode())
    shown = HOSTILE.replace("\x00", "\N{REPLACEMENT CHARACTER}").replace("\ud800", "?")
    assert sum(text == shown for text in markup.texts) >= 12  # as prompts
    assert f"{shown}24" in markup.texts
    assert f"{shown}1" in markup.texts
    assert "Training run <b>& run" in markup.texts
    assert "12 of 24, evenly spaced." in markup.texts


def test_the_curve_lies_where_the_ticks_say(rich_run):
    """Reads the training loss back out of the drawing, by its ticks alone."""
    text = page([read_run(rich_run)])
    figure = text[text.index('<figure id="loss">') :]
    plot = figure[figure.index('<div class="linear">') : figure.index('<div class="log">')]
    ticks = re.findall(
        r'<text class="tick" x="0" dx="-8" y="([\d.]+)" dy="4" text-anchor="end">([\d.]+)<', plot
    )
    heights, values = np.array(ticks, float).T
    slope, start = np.polyfit(heights, np.log(values), 1)
    across = re.findall(r'x="([\d.]+)%" y="318" text-anchor="middle">([\d.,]+)<', plot)
    percents, steps = np.array(across, float).T
    pace, first = np.polyfit(percents, steps, 1)
    faint = re.search(r'class="faint c0" points="([^"]+)"', plot)[1]
    points = np.array([pair.split(",") for pair in faint.split()], float)
    assert len(points) == 24
    np.testing.assert_allclose(first + pace * points[:, 0] / 10, np.arange(1, 25), atol=0.05)
    found = np.exp(start + slope * points[:, 1] * 0.3)
    np.testing.assert_allclose(found, 4 / np.arange(1, 25) ** 0.5, rtol=0.01)
    levels = re.findall(r'<line class="level" x1="0" x2="100%" y1="([\d.]+)"', plot)
    drawn = sorted(np.exp(start + slope * np.array(levels, float)))
    np.testing.assert_allclose(drawn, [1.5, 1.5, 2.2, 3.0, 4.0, 5.6], rtol=0.01)


def test_a_long_run_stays_small(folder):
    rng = np.random.default_rng(0)
    losses = 8 * np.arange(1, 40_001) ** -0.2 + rng.normal(size=40_000) * 0.05
    path = folder(*(step_line(i + 1, float(v)) for i, v in enumerate(losses)))
    assert len(page([read_run(path)])) < 200_000


# the command


@pytest.fixture
def call(monkeypatch, capsys):
    def invoke(*args):
        monkeypatch.setattr("warnings.showwarning", lambda *_: None)  # main changes it
        monkeypatch.setattr(sys, "argv", ["phi-train", *map(str, args)])
        with pytest.raises(SystemExit) as leave:
            cli.main()
        said = capsys.readouterr()
        return subprocess.CompletedProcess(args, leave.value.code, said.out, said.err)

    return invoke


def test_one_run(call, folder):
    path = folder(step_line(24, 2.5), FINAL)
    done = call("report", path)
    assert done.returncode == 0, done.stderr
    assert f"wrote {path / 'report.html'}" in done.stdout
    assert "finished, step 24, held-out loss 2.0000" in done.stdout
    Markup((path / "report.html").read_text(encoding="utf-8"))


def test_several_runs(call, folder, tmp_path):
    one = folder(step_line(24, 2.5), FINAL, name="one")
    two = folder(step_line(1, 3.0), step_line(2, 2.75), name="two")
    done = call("report", one, two, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["report"] == str(tmp_path / "report.html")
    assert [r["state"] for r in answer["runs"]] == ["finished", "stopped"]
    markup = Markup((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert {"one: training, smoothed", "two: training, smoothed"} <= set(markup.texts)
    call("report", one, two, "--output", tmp_path / "other.html")
    assert (tmp_path / "other.html").read_bytes() == (tmp_path / "report.html").read_bytes()


def test_mistakes_are_one_line(call, tmp_path):
    for args, word in (
        ([tmp_path / "none"], "does not exist"),
        ([tmp_path], "holds no run"),
        ([], "RUN_DIR"),
    ):
        done = call("report", *args)
        assert done.returncode in (1, 2)
        assert len(done.stderr.splitlines()) == 1
        assert word in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_new_folder_lies_beside_the_old_one(folder, monkeypatch):
    path = folder(step_line(1, 3.0))
    monkeypatch.chdir(path)
    (path / "inner").mkdir()
    for name in (".", "../made", "inner/..", path):
        words = shlex.split(repeat_command(read_run(name)))
        assert (path / words[-1]).resolve() == path.with_name("made-again")
        assert (path / words[3]).samefile(path / "config.toml")


def test_the_command_in_the_page_makes_the_same_run(call, settings):
    path = train(settings(out="a folder; with 'odd' $names", clip=0.5)).folder.path
    markup = Markup(page([read_run(path)]))
    command = next(text for text in markup.texts if text.startswith("phi-train run"))
    words = shlex.split(command)
    assert words[0] == "phi-train"
    assert call(*words[1:]).returncode == 0
    again = path.with_name(path.name + "-again")
    assert (again / "last.phi").read_bytes() == (path / "last.phi").read_bytes()
