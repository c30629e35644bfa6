"""The page as people see it: in a real browser, against a real server."""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path

import pytest

Page = sys.modules["phi_browser"].Page

pytestmark = pytest.mark.browser


@pytest.fixture
def open_url(browser):
    opened = []

    def open_(url, *, width=1000, dark=False):
        opened.append(Page(browser, f"{url}/", width=width, dark=dark))
        return opened[-1]

    yield open_
    for page in opened:
        page.close()


def write(page, wait_until, **values):
    """Sets the controls, presses the button, waits for the end."""
    for name, value in values.items():
        page(f"document.getElementById('{name}').value = {json.dumps(value)}")
    page("document.getElementById('go').click()")
    wait_until(lambda: not page("document.getElementById('go').disabled"))


def spans(page):
    script = """JSON.stringify([...document.querySelectorAll('#text span')].map(span => (
        {text: span.textContent, shade: Number(span.style.getPropertyValue('--shade')),
         others: span.dataset.others})))"""
    return json.loads(page(script))


@pytest.mark.parametrize("kind", ["gpt", "rwkv7"])
def test_it_shows_the_text_that_the_model_makes(start, open_url, wait_until, kind):
    server = start(kind)
    page = open_url(server.url)
    write(page, wait_until, prompt="The bear", seed="3", temperature="1", max_tokens="40")
    expected = server.generator.complete(
        "The bear", seed=3, temperature=1.0, max_tokens=40, log_probs=5
    )
    found = spans(page)
    assert "".join(span["text"] for span in found) == expected.text
    assert page("document.querySelector('#text i').textContent") == "The bear"
    assert page("document.getElementById('rate').textContent").startswith(
        f"{len(expected.ids)} tokens"
    )
    facts = page("document.getElementById('facts').textContent")
    if kind == "rwkv7":
        state = server.generator.new_step().state
        assert f"in {sum(a.nbytes for a in state.arrays.values()):,} bytes" in facts
    else:
        assert "sees the last 16 tokens" in facts
    assert page.complaints == []
    assert all(url.startswith((server.url, "data:")) for url in page.requests)


def test_colours_by_probability_and_the_rest_on_hover(start, open_url, wait_until):
    server = start()
    page = open_url(server.url)
    write(page, wait_until, prompt="The", seed="1", temperature="1", max_tokens="12")
    expected = server.generator.complete("The", seed=1, temperature=1.0, max_tokens=12, log_probs=5)
    decode = server.generator.tokenizer.token_bytes
    whole = [c for c in expected.choices if decode(c.id).isascii()]
    by_text = {span["text"]: span for span in spans(page)}
    assert len(whole) > 3
    for choice in whole:
        text = decode(choice.id).decode()
        if [decode(c.id).decode(errors="replace") for c in expected.choices].count(text) > 1:
            continue
        span = by_text[text]
        p = 2.718281828459045**choice.log_prob
        assert span["shade"] == pytest.approx(0.65 * (1 - p), abs=2e-3)
        assert f"{100 * p:.1f} %" in span["others"]
        best = max(pair[1] for pair in choice.alternatives)
        assert span["others"].lstrip().startswith(f"{100 * 2.718281828459045**best:.1f} %")
    place = json.loads(
        page("""(() => {
        const box = document.querySelector('#text span').getClientRects()[0];
        return JSON.stringify([box.x + box.width / 2, box.y + box.height / 2]);
    })()""")
    )
    assert page("document.getElementById('others').hidden") is True
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    wait_until(lambda: page("document.getElementById('others').hidden") is False)
    assert page("document.getElementById('others').textContent") == spans(page)[0]["others"]
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=5, y=5)
    wait_until(lambda: page("document.getElementById('others').hidden") is True)


def test_text_is_never_markup(start, open_url, wait_until):
    server = start()
    page = open_url(server.url)
    write(page, wait_until, prompt="<img src=x onerror=alert(1)><b>bold</b>", max_tokens="2")
    assert page("document.querySelectorAll('#text img, #text b').length") == 0
    assert page.complaints == []


def test_stop_frees_the_slot(start, open_url, wait_until):
    server = start()
    page = open_url(server.url)
    page("document.getElementById('max_tokens').value = '1000'")
    page("document.getElementById('temperature').value = '2'")
    page("document.getElementById('go').click()")
    wait_until(lambda: len(spans(page)) > 0)
    page("document.getElementById('halt').click()")
    wait_until(lambda: not page("document.getElementById('go').disabled"))
    wait_until(lambda: server.engine.n_running == 0)
    assert page("document.getElementById('problem').hidden") is True


def test_a_problem_is_told_and_a_key_asked_for(start, open_url, wait_until):
    server = start(api_key="sesame")
    page = open_url(server.url)
    wait_until(lambda: not page("document.getElementById('key-row').hidden"))
    assert "API key" in page("document.getElementById('problem').textContent")
    page("document.getElementById('key').value = 'sesame'")
    page("document.getElementById('key').onchange()")
    wait_until(lambda: "parameters" in page("document.getElementById('facts').textContent"))
    write(page, wait_until, max_tokens="3")
    assert spans(page)
    assert page("document.getElementById('problem').hidden") is True


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1000])
def test_readable_at_every_width(start, open_url, wait_until, width, dark):
    server = start("rwkv7")
    page = open_url(server.url, width=width, dark=dark)
    write(page, wait_until, prompt="The bear " * 20, max_tokens="60", seed="2", temperature="1")
    assert page("document.documentElement.scrollWidth") <= width
    assert page("parseFloat(getComputedStyle(document.getElementById('text')).fontSize)") >= 16
    small = page("""[...document.querySelectorAll('button, textarea, input[type=number]')]
        .filter(e => e.getBoundingClientRect().height < 32).length""")
    assert small == 0
    if folder := os.environ.get("PHI_SCREENSHOTS"):
        name = f"server-{width}-{'dark' if dark else 'light'}.png"
        (Path(folder) / name).write_bytes(base64.b64decode(page.screenshot()))
