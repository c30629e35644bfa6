"""phi-train improve star and spin: from the command line to the page; stopped and gone on with."""

from __future__ import annotations

import io
import json
import signal
from html.parser import HTMLParser

import pytest
from typer.testing import CliRunner

from phi_model import ModelConfig, build_model, save_checkpoint
from phi_tokenizer import Tokenizer
from phi_train import RunError
from phi_train.cli import app
from phi_train.improve import star as star_module
from phi_train.improve.narrator import Narrator
from phi_train.improve.rows import END_OF_TEXT
from phi_train.improve.star_page import write_star_page
from phi_train.stories import stories

STAR = ["improve", "star", "--preset", "gpt-1k", "--rationales", "3", "--base-steps", "4"]
STAR += ["--stories", "12"]
STAR += ["--iterations", "2", "--tasks", "4", "--steps", "3", "--events", "2", "--test", "6"]
VOID = {"meta", "link", "br", "input"}


class Sound(HTMLParser):
    """Raises where an element is not closed in its turn; collects words and names."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.words = ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):  # noqa: ARG002
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):  # noqa: ARG002
        self.seen.add(tag)

    def handle_data(self, data):
        self.words += data


@pytest.fixture(scope="module")
def star_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "star"
    result = CliRunner().invoke(app, [*STAR, "--out", str(folder)])
    assert result.exit_code == 0, result.output
    return folder, result.output


def test_star_prints_its_accuracies_and_writes_its_page(star_run):
    folder, output = star_run
    results = json.loads((folder / "results.json").read_bytes())
    for name, values in results["measured"].items():
        assert f"{name} " in output
        assert f"{values['accuracy']:6.1%}" in output
    page = Sound((folder / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.seen
    assert "points" in page.words
    assert "iteration" in page.words
    assert f"Wrong before and after: {6:,} of 6" in page.words  # four updates teach nothing
    assert "number of events" in page.words


def test_the_same_command_repeats_nothing(star_run, monkeypatch):
    folder, _ = star_run
    content = (folder / "examples.jsonl").read_bytes()
    monkeypatch.setattr(star_module.Star, "_try", None)  # what samples
    result = CliRunner().invoke(app, [*STAR, "--out", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.output)
    assert printed["best"] in ("star-1", "star-2")
    assert (folder / "examples.jsonl").read_bytes() == content


def test_ctrl_c_stops_between_steps_and_says_how_to_go_on(tmp_path, monkeypatch):
    def interrupted(*args):
        if "training star-1" in args[1]:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Narrator, "__call__", interrupted)
    result = CliRunner().invoke(app, [*STAR, "--out", str(tmp_path)])
    assert result.exit_code == 130
    assert "the same command goes on" in result.output
    assert (tmp_path / "base.phi").exists()
    assert not (tmp_path / "run.lock").exists()
    monkeypatch.undo()
    result = CliRunner().invoke(app, [*STAR, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output


def test_text_from_a_model_is_no_markup(star_run):
    folder, _ = star_run
    path = folder / "examples.jsonl"
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace('"completion": "', '"completion": "<script>'), encoding="utf-8")
    write_star_page(folder)
    path.write_text(before, encoding="utf-8")
    page = Sound((folder / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.seen
    assert "<script>" in page.words


def test_a_page_of_an_unfinished_experiment_is_refused(tmp_path):
    with pytest.raises(RunError, match="run the same command again"):
        write_star_page(tmp_path)


def test_spin_from_the_command_line(tmp_path):
    texts = [story.text for story, _ in zip(stories(3), range(400), strict=False)]
    tokenizer = Tokenizer.train(texts, vocab_size=300, special_tokens=[END_OF_TEXT])
    model = build_model(ModelConfig.preset("gpt-1k", vocab_size=300, seq_len=96), seed=1)
    save_checkpoint(tmp_path / "start.phi", model, tokenizer=tokenizer.to_bytes())
    (tmp_path / "texts.txt").write_text(END_OF_TEXT.join(texts), encoding="utf-8")
    command = ["improve", "spin", str(tmp_path / "start.phi"), "--out", str(tmp_path / "spin")]
    command += ["--data", str(tmp_path / "texts.txt"), "--valid", str(tmp_path / "texts.txt")]
    command += ["--iterations", "1", "--pairs", "8", "--max-tokens", "8", "--steps", "3"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "spin" / "results.json").read_bytes())
    for name, values in results["measured"].items():
        assert name in result.output
        assert f"{values['bits_per_byte']:.4f}" in result.output
    page = Sound((tmp_path / "spin" / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.seen
    assert "Before and after" in page.words


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_s_line_is_renewed_and_a_pipe_gets_lines():
    for out, ends in ((Terminal(), 1), (io.StringIO(), 3)):
        tell = Narrator(out)
        tell("training base", 0, 10, "2.5")
        for step in range(1, 11):
            tell("training base", step, 10, "2.4")
        tell("base: 40 %", 1, 1, "")
        assert out.getvalue().count("\n") == ends
        assert "10 of 10" in out.getvalue()
        assert out.getvalue().endswith("base: 40 %\n")
