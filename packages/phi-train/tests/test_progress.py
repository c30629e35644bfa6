"""What a person sees: rates by hand, plain lines in a pipe, a bar on a terminal."""

from __future__ import annotations

import io

import pytest

import phi_train.progress
from phi_train.progress import PlainProgress, Quiet, TerminalProgress, progress_for


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""

    class Clock:
        now = 100.0

        def perf_counter(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(phi_train.progress, "time", made)
    return made


def test_a_line_now_and_then(clock, capsys):
    progress = PlainProgress()
    progress.start(first_step=100, total_steps=120)
    for step in range(101, 111):
        clock.now += 1
        progress.step(step, loss=4.0, tokens=500)
    progress.stop()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "step 105/120  loss 4.000  500 tokens/s  0:15 left",
        "step 110/120  loss 4.000  500 tokens/s  0:10 left",
    ]


def test_the_loss_shown_is_a_mean_that_forgets(clock, capsys):
    progress = PlainProgress()
    progress.start(first_step=0, total_steps=4000)
    for step, loss in enumerate([6.0, 4.0, 2.0], start=1):
        clock.now += 6
        progress.step(step, loss=loss, tokens=1000)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[3] for line in lines] == ["6.000", "5.000", "4.000"]
    assert lines[-1].endswith("6:39:42 left")


def test_the_display_suits_the_output(capsys):
    assert isinstance(progress_for(io.StringIO()), PlainProgress)

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    progress = progress_for(Terminal())
    assert isinstance(progress, TerminalProgress)
    progress.say("[not markup] 12")
    progress.start(first_step=0, total_steps=3)
    progress.step(1, loss=1.0, tokens=10)
    progress.stop()
    progress.stop()
    assert "[not markup] 12" in capsys.readouterr().out


def test_quiet_is_quiet(capsys):
    quiet = Quiet()
    quiet.say("x")
    quiet.start(first_step=0, total_steps=1)
    quiet.step(1, loss=1.0, tokens=1)
    quiet.stop()
    assert capsys.readouterr() == ("", "")
