"""The report as people see it: on a phone and a wide screen, in light and dark.

Set PHI_SCREENSHOTS to a folder to keep a picture of every page.
"""

from __future__ import annotations

import base64
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from phi_train import train
from phi_train.report import read_run, write_page

pytestmark = pytest.mark.browser

WIDTHS = (400, 1400)
SCHEMES = ("light", "dark")
SMALLEST_LETTERS = 11  # pixels
LEAST_CONTRAST = 4.5  # WCAG 2.2, level AA
HOSTILE = "<script>window.hacked = 1; console.log('run'); fetch('http://127.0.0.1:9/x')</script>"

BOXES = """[...document.querySelectorAll(%s)].filter(e => e.checkVisibility()).map(e => {
  const b = e.getBoundingClientRect();
  return {left: b.left, right: b.right, top: b.top + scrollY, bottom: b.bottom + scrollY,
    text: e.textContent, letters: parseFloat(getComputedStyle(e).fontSize) *
    (e.getScreenCTM ? Math.abs(e.getScreenCTM().d) : 1)};
})"""


def boxes(page, selector):
    return page(BOXES % json.dumps(selector))


@pytest.fixture(scope="session")
def long_run(tmp_path_factory):
    """A folder with all that a log can hold, 4,000 steps of it."""
    path = tmp_path_factory.mktemp("runs") / "a-long-name-of-a-run-with-many-settings_lr-0.0015"
    path.mkdir()
    settings = {
        "data": "/some/where/" + "a-very-long-folder-name/" * 6,
        "preset": "gpt-1m",
        **{"steps": 4000, "batch_size": 4, "seq_len": 128, "workers": "2"},
    }
    (path / "config.toml").write_text(
        "".join(f"{k} = {json.dumps(v)}\n" for k, v in settings.items())
    )
    rng = np.random.default_rng(0)
    lines = []
    for step in range(1, 4001):
        loss = 1.2 + 6.2 * math.exp(-((step / 60) ** 0.5)) + rng.normal() * 0.05
        fields = {
            "learning_rate": 0.002 * min(1, step / 100),
            "grad_norm": 0.3 + abs(rng.normal()),
            "tokens": step * 512,
            "seconds": 0.1 * float(rng.gamma(20, 0.05)),
        }
        lines.append({"step": step, "loss": loss} | fields)
        if step % 200 == 0:
            lines.append({"step": step, "valid_loss": loss + 0.05, "valid_tokens": 16_384})
            text = f" there was a bear. {HOSTILE} " + "x" * 200
            lines.append({"step": step, "prompt": "Once upon a time", "sample": text})
            groups = {f"layers.{i}": {"update_ratio": 1e-3 * (1 + i)} for i in range(12)}
            lines.append({"step": step, "groups": groups})
    levels = {"uniform": 6.931, "unigram": 5.6, "bigram": 3.1, "trigram": 1.9}
    final = {
        "final_loss": 1.29,
        "bits_per_byte": 0.6,
        "floor": 0.5,
        "gap": 0.1,
        "baselines": levels,
    }
    lines.append({"step": 4000, **final})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    machine = {
        "cpu": "x" * 90,
        "packages": {"phi-train": "0.1.0"},
        "command": "phi-train run " * 20,
    }
    (path / "environment.json").write_text(json.dumps(machine))
    return path


@pytest.fixture
def real_run(settings):
    return train(settings(steps=24, baselines=True)).folder.path


@pytest.fixture(params=["long", "real", "several", "empty"])
def report_file(request, tmp_path, long_run):
    """The page of one run, of a real one, of several, of one without a step."""
    if request.param == "long":
        runs = [long_run]
    elif request.param == "real":
        runs = [request.getfixturevalue("real_run")]
    elif request.param == "several":
        runs = [long_run, request.getfixturevalue("real_run")]
    else:
        empty = tmp_path / "empty"
        empty.mkdir()
        (empty / "metrics.jsonl").write_text("")
        runs = [empty]
    path = tmp_path / f"{request.param}.html"
    write_page([read_run(run) for run in runs], path)
    return path


@pytest.fixture
def look(open_page):
    """Opens a page; keeps its picture where that is wanted."""

    def open_(path, *, width, dark=False):
        page = open_page(path, width=width, dark=dark)
        if kept := os.environ.get("PHI_SCREENSHOTS"):
            name = f"{path.stem}-{width}-{SCHEMES[dark]}.png"
            Path(kept, name).write_bytes(base64.b64decode(page.screenshot()))
        return page

    return open_


@pytest.mark.parametrize("dark", [False, True], ids=SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_is_quiet_alone_and_fits(look, report_file, width, dark):
    page = look(report_file, width=width, dark=dark)
    assert page.complaints == []
    assert page.requests == [report_file.as_uri()]
    assert page("innerWidth") == width
    assert page("document.documentElement.scrollWidth") <= width
    outside = [
        box
        for box in boxes(page, "body *:not(.scroll *):not(polyline):not(path)")
        if box["left"] < -0.5 or box["right"] > width + 0.5
    ]
    assert outside == []
    assert page("document.scripts.length") == 0
    assert page("window.hacked") is None
    letters = [box["letters"] for box in boxes(page, "text, p, td, th, li, pre, label, summary")]
    assert min(letters) >= SMALLEST_LETTERS


@pytest.mark.parametrize("width", WIDTHS)
def test_the_curves_are_drawn(look, tmp_path, long_run, width):
    path = tmp_path / "curves.html"
    write_page([read_run(long_run)], path)
    page = look(path, width=width)
    lines = {"loss": 3, "throughput": 2, "learning-rate": 1, "grad-norm": 2, "update-ratio-0": 12}
    assert page("[...document.querySelectorAll('figure')].map(f => f.id)") == list(lines)
    for figure, n in lines.items():
        (plot,) = boxes(page, f"#{figure} svg.plot")
        assert plot["right"] - plot["left"] >= 0.35 * width
        assert plot["bottom"] - plot["top"] == 300
        drawn = boxes(page, f"#{figure} svg.plot polyline")
        assert len(drawn) == n
        for line in drawn:  # an outlier's faint line may leave the plot, where it is cut off
            assert line["right"] - line["left"] > 0.9 * (plot["right"] - plot["left"])
            assert plot["top"] - 1 <= line["bottom"]
            assert line["top"] <= plot["bottom"] + 1
    assert len(boxes(page, "#loss svg.plot circle.dot")) == 20  # the last of the whole set


@pytest.mark.parametrize("dark", [False, True], ids=SCHEMES)
def test_the_curve_is_painted_where_the_drawing_has_it(look, tmp_path, long_run, dark):
    """The line's own colour is found along the whole plot, falling from left to right."""
    path = tmp_path / "painted.html"
    write_page([read_run(long_run)], path)
    page = look(path, width=1400, dark=dark)
    plot = boxes(page, "#loss svg.plot")[0]
    area = {"x": plot["left"], "y": plot["top"], "height": 300}
    pixels = page.picture(area | {"width": plot["right"] - plot["left"]}).astype(int)
    stroke = page("getComputedStyle(document.querySelector('#loss polyline.line')).stroke")
    colour = [int(part) for part in stroke[4:-1].split(",")]
    hit = np.abs(pixels - colour).sum(axis=2) < 30
    columns = np.flatnonzero(hit.any(axis=0))
    assert columns.size > 0.85 * pixels.shape[1]  # dots cover some of it
    heights = np.array([np.median(np.flatnonzero(hit[:, c])) for c in columns])
    assert heights[: columns.size // 20].mean() + 100 < heights[-columns.size // 20 :].mean()


@pytest.mark.parametrize("width", WIDTHS)
def test_no_label_lies_on_another(look, tmp_path, long_run, width):
    path = tmp_path / "labels.html"
    write_page([read_run(long_run)], path)
    page = look(path, width=width)
    for figure in page("[...document.querySelectorAll('figure')].map(f => f.id)"):
        labels = boxes(page, f"#{figure} svg.plot text")
        assert len(labels) >= 6
        for i, a in enumerate(labels):
            for b in labels[i + 1 :]:
                apart = (
                    min(a["right"], b["right"]) <= max(a["left"], b["left"])
                    or min(a["bottom"], b["bottom"]) <= max(a["top"], b["top"]) + 3
                )
                assert apart, (figure, a["text"], b["text"])


def test_the_logarithmic_axis_can_be_chosen(look, tmp_path, long_run):
    path = tmp_path / "axis.html"
    write_page([read_run(long_run)], path)
    page = look(path, width=400)
    ticks = "#loss svg.plot text.tick"
    linear = [box["text"] for box in boxes(page, ticks)]
    assert "2,000" in linear
    page("document.querySelector('label[for=loss-log]').click()")
    log = [box["text"] for box in boxes(page, ticks)]
    assert "2,000" not in log
    assert {"10", "100", "1,000"} <= set(log)
    page("document.querySelector('label[for=loss-linear]').click()")
    assert [box["text"] for box in boxes(page, ticks)] == linear


def luminance(colour):
    parts = [int(part) / 255 for part in colour[4:-1].split(",")]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("dark", [False, True], ids=SCHEMES)
def test_text_can_be_read_in_light_and_dark(look, tmp_path, long_run, dark):
    path = tmp_path / "contrast.html"
    write_page([read_run(long_run)], path)
    page = look(path, width=400, dark=dark)
    style = "getComputedStyle(document.querySelector('%s')).%s"
    papers = [luminance(page(style % (on, "backgroundColor"))) for on in ("body", ".cards li")]
    assert (papers[0] < 0.2) == dark
    inks = [page(style % of) for of in ((".cards b", "color"), (".cards span", "color"))]
    inks += [page(style % of) for of in (("text.tick", "fill"), (".badge", "color"))]
    for ink in map(luminance, inks):
        for paper in papers:
            assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= LEAST_CONTRAST


def test_these_tests_would_see_what_is_wrong(look, tmp_path):
    path = tmp_path / "wrong.html"
    path.write_text(
        f"<!DOCTYPE html><meta name=viewport content='width=device-width'>{HOSTILE}"
        "<div style='width:900px'>wide</div><p style='font-size:9px'>small</p>"
        "<img src='http://127.0.0.1:9/picture.png'>"
    )
    page = look(path, width=400)
    assert any("run" in said for said in page.complaints)
    assert {"http://127.0.0.1:9/x", "http://127.0.0.1:9/picture.png"} <= set(page.requests)
    assert page("document.documentElement.scrollWidth") >= 900
    assert page("window.hacked") == 1
    assert min(box["letters"] for box in boxes(page, "p")) < SMALLEST_LETTERS
