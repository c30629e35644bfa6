"""An experiment's file: what it means, and what is refused."""

from __future__ import annotations

import pytest

from phi_train import ConfigError
from phi_train.experiment import find_experiments, read_experiment
from phi_train.experiment.canonical import canonical_config
from phi_train.experiment.experiment import experiment_named
from phi_train.experiment.plan import trial_of

PAGE = """
id = "page"
question = "Q?"
hypothesis = "H."
success = "S."
"""
BASE = """
[base]
data = "builtin"
steps = 10
[base.model]
n_layer = 2
"""


@pytest.fixture
def write(tmp_path):
    def make(text, name="page.toml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return make


def test_arms_and_grid(write):
    text = PAGE + BASE
    text += '[arms.flat]\n[arms.deep]\n"model.n_layer" = 3\n[arms.table.model]\nn_head = 1\n'
    text += "[grid]\nsteps = [10, 20]\nlearning_rate = [1e-3]\n"
    arms = {arm.name: arm for arm in read_experiment(write(text)).arms}
    assert list(arms)[:2] == [
        "flat, steps=10, learning_rate=0.001",
        "flat, steps=20, learning_rate=0.001",
    ]
    assert len(arms) == 6
    deep = arms["deep, steps=20, learning_rate=0.001"]
    assert deep.changes == {"model.n_layer": 3, "steps": 20, "learning_rate": 1e-3}
    assert deep.config["model"] == {"n_layer": 3}
    assert deep.config["steps"] == 20
    table = arms["table, steps=10, learning_rate=0.001"]
    assert table.config["model"] == {"n_layer": 2, "n_head": 1}


def test_a_base_alone_is_one_arm(write):
    experiment = read_experiment(write(PAGE + "seeds = [3, 5]\n" + BASE))
    assert [arm.name for arm in experiment.arms] == ["base"]
    assert experiment.seeds == (3, 5)
    assert experiment.baseline_arm.name == "base"
    assert experiment.journal.name == "page.jsonl"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BASE, "id is missing"),
        (PAGE.replace('"Q?"', '" "') + BASE, "question is missing: write it down before"),
        (PAGE, r"\[base\] is missing"),
        (PAGE + "speed = 1\n" + BASE, "no key is called 'speed'"),
        (PAGE + "seeds = 0\n" + BASE, "seeds is 0"),
        (PAGE + "seeds = [1, 1]\n" + BASE, "give different numbers"),
        (PAGE + "keep = 1\n" + BASE, "keep is 1; it must be a bool"),
        (PAGE + "error_rate = 1\n" + BASE, "error_rate is 1"),
        (PAGE + 'held_out = "test"\n' + BASE, "held_out is 'test'"),
        (PAGE + "share = 0.0\n" + BASE, "share is 0.0"),
        (PAGE + "share = 1.5\n" + BASE, "share is 1.5"),
        (PAGE + 'share = 0.5\nfunction = "a.py:f"\n' + BASE, "and 1 of a function"),
        (PAGE + 'baseline = "x"\n' + BASE, "'x', which is no arm"),
        (PAGE + BASE + "[arms.a]\n[arms.b]\nsteps = 10\n", "'a' and 'b' have the same settings"),
        (PAGE + BASE + "[arms.a]\nseed = 1\n", "seed is no setting of an arm"),
        (PAGE + BASE + "[arms.a]\nstep = 1\n", "no setting is called 'step'"),
        (PAGE + BASE + "[arms]\na = 1\n", "arms.a is 1"),
        (PAGE + BASE + "[grid]\nsteps = 5\n", "grid.steps is 5"),
        (PAGE + BASE + "[budget]\nhours = 5\n", "budget.hours is unknown"),
        (PAGE.replace('"page"', '"../x"') + BASE, "id is '../x'"),
        ("id = ", "is not a TOML file"),
    ],
)
def test_what_is_refused_names_the_file(write, text, words):
    with pytest.raises(ConfigError, match=words) as caught:
        read_experiment(write(text))
    assert "page.toml" in str(caught.value)


def test_a_missing_file_and_an_unknown_id(write, tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        read_experiment(tmp_path / "none.toml")
    write(PAGE + BASE, "below/page.toml")
    write("steps = 3\n", "settings.toml")
    assert [e.id for e in find_experiments(tmp_path)] == ["page"]
    with pytest.raises(ConfigError, match=r"no experiment in .* has the id 'x'; there are page"):
        experiment_named("x", tmp_path)
    write(PAGE + BASE, "again.toml")
    with pytest.raises(ConfigError, match="id 'page' is taken already"):
        find_experiments(tmp_path)


def test_a_default_written_out_is_no_other_config():
    short = canonical_config({"data": "builtin", "steps": 10})
    long = canonical_config({"data": "builtin", "steps": 10, "batch_size": 4, "seed": 7})
    assert short == long
    assert canonical_config({"data": "builtin", "steps": 11}) != short


def test_the_key_knows_seed_and_content_but_not_the_path(write, tmp_path, monkeypatch):
    def key(folder, seed=0, content="One.<|endoftext|>Two."):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "x.txt").write_text(content)
        monkeypatch.setenv("THE_DATA", str(tmp_path / folder))
        text = PAGE + BASE.replace('"builtin"', '"${THE_DATA}/x.txt"')
        experiment = read_experiment(write(text))
        return trial_of(experiment, experiment.arms[0], seed)

    first = key("a")
    assert first.key == key("b").key
    assert first.settings == key("b", seed=1).settings
    assert len({first.key, key("a", seed=1).key, key("c", content="Three.").key}) == 3
    monkeypatch.delenv("THE_DATA")
    experiment = read_experiment(tmp_path / "page.toml")
    with pytest.raises(ConfigError, match=r"needs the environment variable THE_DATA.* or give --d"):
        trial_of(experiment, experiment.arms[0], 0)
    given = {"data": str(tmp_path / "b" / "x.txt")}
    assert trial_of(experiment, experiment.arms[0], 0, overrides=given).key == first.key
