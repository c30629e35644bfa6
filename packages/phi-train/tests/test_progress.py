"""What a person sees: rates by hand, plain lines in a pipe, a live view on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

import phi_train.progress
import phi_train.rates
from phi_train.live import LiveProgress
from phi_train.plot import curve
from phi_train.progress import PlainProgress, Quiet, progress_for
from phi_train.rates import Rates


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""

    class Clock:
        now = 100.0

        def perf_counter(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(phi_train.progress, "time", made)
    monkeypatch.setattr(phi_train.rates, "time", made)
    return made


def test_a_line_now_and_then(clock, capsys):
    progress = PlainProgress()
    progress.start(first_step=100, total_steps=120, share=100 / 120)
    for step in range(101, 111):
        clock.now += 1
        progress.step(step, loss=4.0, tokens=500, share=step / 120, parts={})
    progress.stop()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "step 105/120  loss 4.000  500 tokens/s  0:15 left",
        "step 110/120  loss 4.000  500 tokens/s  0:10 left",
    ]


def test_the_loss_shown_is_a_mean_that_forgets(clock, capsys):
    progress = PlainProgress()
    progress.start(first_step=0, total_steps=4000, share=0.0)
    for step, loss in enumerate([6.0, 4.0, 2.0], start=1):
        clock.now += 6
        progress.step(step, loss=loss, tokens=1000, share=step / 4000, parts={})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[3] for line in lines] == ["6.000", "5.000", "4.000"]
    assert lines[-1].endswith("6:39:42 left")


def test_with_a_budget_in_seconds_there_is_no_number_of_steps(clock, capsys):
    progress = PlainProgress()
    progress.start(first_step=0, total_steps=0, share=0.25)
    clock.now += 6
    progress.step(1, loss=1.0, tokens=600, share=0.5, parts={})
    assert capsys.readouterr().out == "step 1  loss 1.000  100 tokens/s  0:12 left\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_display_suits_the_output(capsys):
    assert isinstance(progress_for(io.StringIO()), PlainProgress)
    progress = progress_for(Terminal())
    assert isinstance(progress, LiveProgress)
    progress.say("[not markup] 12")
    progress.start(first_step=0, total_steps=3, share=0.0)
    progress.step(1, loss=1.0, tokens=10, share=1 / 3, parts={"model": 0.1})
    progress.spent("evaluation", 0.1)
    progress.stop()
    progress.stop()
    assert "[not markup] 12" in capsys.readouterr().out


def _shown(width=80, encoding="utf-8", steps=40):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="strict", write_through=True)
    console = Console(file=file, force_terminal=True, width=width, color_system=None)
    view = LiveProgress(console)
    view.start(first_step=0, total_steps=80, share=0.0)
    for step in range(1, steps + 1):
        parts = {"model": 0.9, "optimizer": 0.06, "data": 0.01}
        view.step(step, loss=8.0 / step, tokens=512, share=step / 80, parts=parts)
    view.spent("evaluation", 0.03 * steps)
    view.stop()
    raw.truncate(0)
    raw.seek(0)
    console.print(view.view())
    return raw.getvalue().decode(encoding).splitlines()


def test_the_live_view():
    lines = _shown()
    assert len(lines) == 6 + 3
    assert lines[0].startswith("  8.000 ")
    assert lines[5].startswith("  0.200 ")
    assert any(0x2800 < ord(c) <= 0x28FF for c in lines[0])
    assert "step 40/80" in lines[6]
    assert "tokens/s" in lines[6]
    assert lines[8].rstrip() == "time: model 90%  optimizer 6%  evaluation 3%  data 1%"
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize("options", [{"encoding": "latin-1"}, {"width": 20}])
def test_the_live_view_without_room_or_braille(options):
    lines = _shown(**options)
    assert len(lines) == 3
    assert not any(0x2800 <= ord(c) <= 0x28FF for line in lines for c in line)


def _dots(lines):
    """Every dot of the characters as (column, row)."""
    rows = {0x01: (0, 0), 0x02: (0, 1), 0x04: (0, 2), 0x40: (0, 3)}
    rows |= {0x08: (1, 0), 0x10: (1, 1), 0x20: (1, 2), 0x80: (1, 3)}
    return {
        (2 * x + dx, 4 * y + dy)
        for y, line in enumerate(lines)
        for x, char in enumerate(line)
        for bit, (dx, dy) in rows.items()
        if (ord(char) - 0x2800) & bit
    }


def test_a_curve_passes_through_its_values():
    values = [5.0, 1.0, 4.0, 4.0, 0.0, 2.0, 3.0, 5.0]
    dots = _dots(curve(values, width=4, height=3))
    for x, value in enumerate(values):
        assert (x, round((5 - value) / 5 * 11)) in dots
        column = sorted(y for dx, y in dots if dx == x)
        assert column == list(range(column[0], column[-1] + 1))


def test_a_curve_of_many_few_no_and_odd_values():
    assert {y for _, y in _dots(curve(list(range(1000)), width=5, height=2))} == set(range(8))
    assert {y for _, y in _dots(curve([1.0], width=5, height=2))} == {0}
    assert _dots(curve([], width=5, height=2)) == set()
    assert _dots(curve([float("nan")] * 30, width=5, height=2)) == set()
    gap = _dots(curve([1.0, float("nan"), float("inf"), 0.0], width=2, height=1))
    assert gap == {(0, 0), (3, 3)}


def test_the_curve_keeps_few_points_of_a_long_run(clock):
    clock.now += 1
    rates = Rates(first_step=7, total_steps=100_000)
    for step in range(8, 10_008):
        rates.update(step, loss=float(step), tokens=1, share=0.5, parts={"model": 1.0})
    assert len(rates.losses) <= 512
    strides = {b - a for a, b in zip(rates.losses, rates.losses[1:], strict=False)}
    assert strides == {float(rates.stride)}
    assert rates.losses[0] == 8.0
    assert rates.losses[-1] > 10_000 - rates.stride
    assert rates.time_shares == [("model", 1.0)]


def test_quiet_is_quiet(capsys):
    quiet = Quiet()
    quiet.say("x")
    quiet.start(first_step=0, total_steps=1, share=0.0)
    quiet.step(1, loss=1.0, tokens=1, share=1.0, parts={})
    quiet.spent("x", 1.0)
    quiet.stop()
    assert capsys.readouterr() == ("", "")
