"""The report says what the ledger says, needs nothing but itself, and what it tells repeats."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from phi_train import ConfigError, DataError, RunError
from phi_train.experiment import Journal, Outcome, read_experiment, results_of, run_study
from phi_train.experiment.builtin import builtin_search
from phi_train.experiment.frontier import COSTS, frontier_rows
from phi_train.experiment.grid import parse_vary
from phi_train.experiment.ledger import Row, search_ledger, study_ledger
from phi_train.experiment.mutate import STRATEGIES
from phi_train.experiment.report import report_of, write_report
from phi_train.experiment.run import known_search, open_final, run_search
from phi_train.experiment.search import Search

QUESTION = "Is <this> & that?"
SEARCH = """
[search]
strategies = ["random"]
trials = 3
seeds = 3
more_seeds = 1
confirmation_seeds = 3
final_seeds = 2
"""


class _Page(HTMLParser):
    VOID = ("meta", "link", "input", "br", "line", "circle", "path", "polyline")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.urls, self.text = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.urls += [v for k, v in attrs if k in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, _attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def _parsed(path):
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture
def small(page, tiny):
    """Writes small.toml: a model that hardly learns, and what comes after [base]."""

    def make(threshold, rest, **sources):
        base = tiny(steps=40, learning_rate=1e-5, **sources)
        text = f"threshold = {threshold}\n{base}{rest}"
        return page("small", text, question=QUESTION)

    return make


@pytest.fixture
def rates(monkeypatch):
    """The only strategy draws rates at which a model learns, unlike its baseline."""

    def draw(_, rng):
        return {"learning_rate": rng.choice((0.005, 0.01, 0.015, 0.02))}

    monkeypatch.setitem(STRATEGIES, "random", draw)


@pytest.fixture
def search(tmp_path, small, texts, rates):  # noqa: ARG001 (it must stay drawn so)
    """A search that was run, whose baseline hardly learns."""
    experiment = small(0.0001, SEARCH, **texts)
    run_search(experiment, work=tmp_path / "work")
    return experiment


def test_a_search_from_its_first_trial_to_the_final_test(search, tmp_path):
    plan, final = known_search(search)
    assert final is None
    assert plan.best.number > 0, [c.state for c in plan.candidates]
    rows, _, _ = report_of(search)
    html, text = write_report(search, rows, tmp_path / "out", search=plan)
    assert "The final text is closed" in text.read_text()
    assert {part for _, _, part, _ in plan.outcomes} == {"search", "confirmation"}

    open_final(search, work=tmp_path / "work")
    rows, plan, final = report_of(search)
    assert final is not None
    assert final.difference.pairs == 2
    html, text = write_report(search, rows, tmp_path / "out", search=plan, final=final)
    for content in (text.read_text(), _parsed(html).text):
        assert f"differs from the baseline by {final.difference.mean:+.4f}" in content
    size = search.journal.stat().st_size
    open_final(search, work=tmp_path / "work")
    assert search.journal.stat().st_size == size, "it is opened once"
    with pytest.raises(RunError, match="the final text of small was opened"):
        run_search(search, work=tmp_path / "work")
    seeds = {line["seed"] for line in Journal(search.journal).lines if line.get("part") == "test"}
    assert seeds == {2000, 2001}


def test_nothing_promoted_nothing_opened(tmp_path, small, texts):
    experiment = small(50.0, SEARCH, **texts)
    run_search(experiment, work=tmp_path / "work")
    with pytest.raises(RunError, match="the final text stays closed"):
        open_final(experiment, work=tmp_path / "work")
    assert not [line for line in Journal(experiment.journal).lines if "opened" in line]


def test_the_page_and_the_text_tell_every_row(search, tmp_path):
    rows, plan, _ = report_of(search)
    html, text = write_report(search, rows, tmp_path / "out", search=plan)
    page = _parsed(html)
    assert "script" not in page.tags
    assert page.urls == ["data:,"], "nothing is fetched"
    assert QUESTION in page.text
    for content in (page.text, text.read_text()):
        for row in rows:
            assert row.name in content
            if row.low is not None:
                assert f"{row.low:+.4f} to {row.high:+.4f}" in content
    assert page.tags.count("figure") == 4
    early = [row for row in rows if row.low is not None and row.share < 1]
    assert all(f"{row.name} (at {row.share:.0%} of the budget)" in page.text for row in early)
    assert early


def test_what_it_says_repeats_does(search, tmp_path):
    """The command of a change gives the very figures of the search, wherever it was looked at."""
    rows, plan, _ = report_of(search)
    write_report(search, rows, tmp_path / "out", search=plan)
    assert len({row.share for row in rows[1:]}) > 1, "one went to its end, one did not"
    for number, row in enumerate(rows):
        repeat = read_experiment(tmp_path / "out" / "repeat" / f"{number:03d}.toml")
        run_study(repeat, work=tmp_path / "again")
        values = {
            r.trial.seed: r.outcome.metrics["bits_per_byte"]
            for r in results_of(repeat)
            if r.trial.arm in ("after", "base")
        }
        assert tuple(values) == row.seeds
        assert sum(values.values()) / len(values) == pytest.approx(row.value, rel=1e-12)
        judged = study_ledger(repeat)[-1]
        if row.against:
            assert judged.mean == pytest.approx(row.mean, rel=1e-9)
            assert judged.share == row.share


def test_a_studys_rows_are_judged_together(small):
    names = {"same": 1.0, "better": 0.5, "worse": 1.5, "slightly": 0.95, "far": None}
    arms = "".join(f"[arms.{name}]\nclip = {i + 1}.0\n" for i, name in enumerate(names))
    experiment = small(0.1, arms, data="builtin")
    journal = Journal(experiment.journal)
    for arm in experiment.arms:
        for seed in experiment.seeds:
            level = names[arm.name]
            outcome = Outcome(state="diverged", error="nan")
            if level is not None:
                value = level + 0.01 * seed + (0.001 if arm.name > "c" else 0) * seed
                outcome = Outcome(state="finished", metrics={"bits_per_byte": value}, steps=3)
            journal.note(
                key=f"{arm.name}{seed}",
                seed=seed,
                settings=experiment.settings(arm),
                outcome=outcome.as_dict(),
            )
    rows = {row.name: row for row in study_ledger(experiment)}
    states = {name: row.state for name, row in rows.items()}
    assert states == {
        "same": "baseline",
        "better": "keep",
        "worse": "discard",
        "slightly": "discard",
        "far": "diverged",
    }
    assert rows["better"].level == pytest.approx(0.05 / 4)
    assert rows["better"].adjusted_p >= rows["better"].p
    assert rows["better"].steps == 9


def test_the_frontier_is_what_nothing_beats():
    def row(name, parameters, value, share=1.0):
        return Row(name=name, state="keep", parameters=parameters, value=value, share=share)

    rows = [row("a", 10, 3.0), row("b", 20, 2.0), row("c", 30, 2.5), row("d", 5, 9.0)]
    rows += [row("e", 1, 1.0, share=0.5), row("f", 40, None), row("g", 20, 2.1)]
    assert [r.name for r in frontier_rows(rows, COSTS[0])] == ["d", "a", "b"]


def test_the_builtin_search_remembers_how_it_was_begun(tmp_path):
    first = builtin_search(tmp_path, settings={"seed": 3, "trials": 5})
    assert builtin_search(tmp_path).search == first.search
    assert builtin_search(tmp_path, settings={"trials": 9}).search["trials"] == 9
    with pytest.raises(ConfigError, match="was begun with seed 3"):
        builtin_search(tmp_path, settings={"seed": 4})
    assert Search(first).settings.seed == 3


def test_the_builtin_search_remembers_its_text(tmp_path, texts):
    first = builtin_search(tmp_path, sources=texts)
    assert {k: first.arms[0].config[k] for k in texts} == texts
    again = builtin_search(tmp_path, sources={"data": texts["data"]}, begin=False)
    assert again.arms == builtin_search(tmp_path).arms == first.arms
    with pytest.raises(ConfigError, match=r"was begun with valid '.*valid\.txt': leave the option"):
        builtin_search(tmp_path, sources={"valid": texts["data"]})
    with pytest.raises(ConfigError, match=r"was begun with data '.*data\.txt': leave the option"):
        builtin_search(tmp_path, sources={"data": "builtin"})


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"settings": {"strategies": ["magic"]}}, ConfigError, "magic"),
        ({"settings": {"trials": -1}}, ConfigError, "trials"),
        ({"sources": {"data": "nowhere.txt"}}, DataError, "nowhere.txt"),
        ({"sources": {"data": "${NO_SUCH_NAME}/a.txt"}}, ConfigError, "export NO_SUCH_NAME"),
        ({"begin": False}, RunError, "no search was begun in .*: phi-train experiment search"),
    ],
)
def test_a_mistake_does_not_begin_the_builtin_search(tmp_path, wrong, error, words):
    with pytest.raises(error, match=words):
        builtin_search(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())
    assert builtin_search(tmp_path).arms[0].config["data"] == "builtin"


def test_a_search_on_other_text_than_the_files_is_repeated_on_it(tmp_path, small, texts, rates):  # noqa: ARG001
    experiment = small(0.0001, SEARCH.replace("trials = 3", "trials = 1"), data="elsewhere.txt")
    run_search(experiment, work=tmp_path / "work", overrides=texts)
    rows, plan, _ = report_of(experiment, overrides=texts)
    write_report(experiment, rows, tmp_path / "out", search=plan)
    assert len(rows) == 2
    for number in range(2):
        repeat = read_experiment(tmp_path / "out" / "repeat" / f"{number:03d}.toml")
        for arm in repeat.arms:
            assert {k: arm.config[k] for k in texts} == texts


def test_vary():
    assert parse_vary(["a=1,2.5", "b=x,true"]) == {"a": [1, 2.5], "b": ["x", True]}
    for wrong in ("a", "=1", "a=", "a=1,,2"):
        with pytest.raises(ConfigError, match="it must be like learning_rate"):
            parse_vary([wrong])


def test_the_commands(tmp_path, page, tiny, texts, program):
    def run(*words, code=0):
        done = subprocess.run(
            [str(program), "experiment", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stderr

    base = tiny(steps=40, data="elsewhere.txt")
    text = "seeds = 2\n" + base + "[arms.slow]\n[arms.fast]\nlearning_rate = 0.01\n"
    page("small", text, folder=tmp_path / "experiments")
    assert "0 of 4" in run("list")
    assert "elsewhere.txt does not exist" in run("run", "small", code=1)
    run("run", "small", "--data", texts["data"], "--valid", texts["valid"])
    listed = json.loads(run("list", "--json"))["experiments"]
    assert listed == [{"id": "small", "question": "Q?", "done": 4, "of": 4}]
    found = json.loads(run("report", "small", "--json"))["experiments"][0]
    assert [row["name"] for row in found["ledger"]] == ["slow", "fast"]
    assert Path(tmp_path, found["report"]).exists()
    assert "has the id 'none'; there are small" in run("report", "none", code=1)
    options = ("--steps", 12, "--preset", "gpt-1k", "--seeds", 2, "--workers", 1)
    said = run("grid", "--vary", "learning_rate=1e-3,1e-2", "--data", texts["data"], *options)
    assert re.search(r"learning_rate=0.01: .* bits_per_byte \(", said)


def test_what_was_not_decided_in_time_is_not_called_killed(tmp_path):
    search = Search(builtin_search(tmp_path))
    rows = search_ledger(search)
    assert [row.state for row in rows] == ["killed"]
    _, text = write_report(search.experiment, rows, tmp_path / "out", search=search)
    said = text.read_text()
    assert (
        "0 tried: nothing yet. The baseline's standard deviation from seed to seed is not" in said
    )
    assert "| base | undecided |" in said
    assert "killed" not in said


def test_arms_that_were_not_run_were_not_tried(small, tmp_path):
    experiment = small(0.1, "[arms.a]\n[arms.b]\nclip = 2.0\n", data="builtin")
    _, text = write_report(experiment, study_ledger(experiment), tmp_path / "out")
    said = text.read_text()
    assert "0 tried: nothing yet. 2 not run yet." in said
    assert said.count("| not run |") == 2


def test_what_waits_is_not_said_to_be_worse(small, texts, rates, tmp_path):  # noqa: ARG001
    """Whether it is among the best shows only later; the ledger tells it then."""
    lines: list[str] = []
    experiment = small(0.0001, SEARCH.replace("trials = 3", "trials = 1"), **texts)
    run_search(experiment, work=tmp_path / "work", say=lines.append)
    first = next(line for line in lines if line.startswith("001 "))
    assert first.endswith("goes on from 25% if it is among the best")


def test_a_baseline_that_fails_is_told(tmp_path):
    search = Search(builtin_search(tmp_path))
    first = search.open_trials(lambda _: None)[0]
    failed = Outcome(state="crashed", error="MemoryError: no room")
    search.open_trials({first.key: failed}.get)
    rows = search_ledger(search)
    _, text = write_report(search.experiment, rows, tmp_path / "out", search=search)
    said = text.read_text()
    assert "There is nothing to compare with: base crashed." in said
    assert "| base | crashed | MemoryError: no room |" in said


def test_a_search_whose_baseline_crashed_is_an_error_and_can_be_tried_again(
    tmp_path, small, texts, program
):
    experiment = small(0.0001, SEARCH.replace("trials = 3", "trials = 1"), **texts)
    first = Search(experiment).open_trials(lambda _: None)[0]
    Journal(experiment.journal).add(first, Outcome(state="crashed", error="MemoryError: no room"))

    def run(*words):
        command = [str(program), "experiment", "search", str(tmp_path / "small.toml"), *words]
        return subprocess.run(
            [*command, "--work", str(tmp_path / "work"), "--workers", "1"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    failed = run()
    assert failed.returncode == 1
    assert "going on after 1 trials\n0 changes decided" in failed.stdout
    assert "its baseline crashed" in failed.stderr
    assert "MemoryError: no room (--retry tries it again)" in failed.stderr
    retried = run("--retry")
    assert retried.returncode == 0, retried.stderr
    assert "\n1 changes decided" in retried.stdout
