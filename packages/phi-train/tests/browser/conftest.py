"""A real browser without a window, driven through its DevTools pipe; nothing else is needed.

Runs only where a Chromium is installed (the `browser` environment) and fails where there is none.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60.0  # for any one answer
QUIET = 0.3  # seconds without an event: nothing more is under way


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "browser: needs a Chromium")


class Browser:
    """One browser process. Messages are JSON, a zero byte after each."""

    def __init__(self, program: str, folder: Path) -> None:
        to_us, from_browser = _pipe()
        to_browser, from_us = _pipe()

        def place() -> None:  # where the browser looks: it reads 3 and writes 4
            os.dup2(to_browser, 3)
            os.dup2(from_browser, 4)

        self._process = subprocess.Popen(
            [
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                f"--user-data-dir={folder}",
                "--remote-debugging-pipe",
            ],
            env=os.environ | {"HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=place,  # noqa: PLW1509 (no thread runs here)
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._in, self._out = to_us, from_us
        self._rest = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive(SECONDS)
            assert answer is not None, f"the browser does not answer to {method}"
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """The next message, None when there is none in that time."""
        end = time.monotonic() + seconds
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return None
            part = os.read(self._in, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Page:
    """One page, opened and left alone until nothing more happens."""

    def __init__(self, browser: Browser, url: str, *, width: int, dark: bool) -> None:
        self._browser, self.width = browser, width
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        browser.events.clear()
        self.call("Page.navigate", url=url)
        end = time.monotonic() + SECONDS
        while self("document.readyState") != "complete":
            assert time.monotonic() < end, f"{url} is not loaded yet"
            time.sleep(0.01)
        while (event := browser.receive(QUIET)) is not None:
            browser.events.append(event)
        mine = [e for e in browser.events if e.get("sessionId") == self._session]
        self.events = [(e["method"], e["params"]) for e in mine]
        self._target = target

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def __call__(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    @property
    def complaints(self) -> list[str]:
        """Whatever the console shows: messages, errors, refusals."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(params) for method, params in self.events if method in kinds]

    @property
    def requests(self) -> list[str]:
        """Addresses that the page asked for, its own first."""
        sent = [p for method, p in self.events if method == "Network.requestWillBeSent"]
        return [p["request"]["url"] for p in sent]

    def picture(self, clip: dict[str, float] | None = None) -> Any:
        """Pixels [height, width, 3] of a part of the page, of all of it without a clip."""
        return _pixels(base64.b64decode(self.screenshot(clip)))

    def screenshot(self, clip: dict[str, float] | None = None) -> str:
        if clip is None:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": self.width, "height": size["height"]}
        area = clip | {"scale": 1}
        done = self.call("Page.captureScreenshot", clip=area, captureBeyondViewport=True)
        return str(done["data"])

    def close(self) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are far from 3 and 4."""
    ends = os.pipe()
    far = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in ends]
    for end in ends:
        os.close(end)
    return far[0], far[1]


def _pixels(png: bytes) -> Any:
    """A PNG of 8 bits a channel, not interlaced, as browsers write it (RFC 2083)."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    place, data = 8, b""
    while place < len(png):
        size, kind = int.from_bytes(png[place : place + 4], "big"), png[place + 4 : place + 8]
        chunk = png[place + 8 : place + 8 + size]
        if kind == b"IHDR":
            width, height = (int.from_bytes(chunk[i : i + 4], "big") for i in (0, 4))
            channels = {2: 3, 6: 4}[chunk[9]]
            assert chunk[8] == 8
            assert chunk[12] == 0
        elif kind == b"IDAT":
            data += chunk
        place += 12 + size
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, 1 + width * channels)
    image = np.zeros((height, width, channels), np.int64)
    above = np.zeros((width, channels), np.int64)
    for y, row in enumerate(rows):
        line = row[1:].reshape(width, channels).astype(np.int64)
        above = image[y] = _unfiltered(int(row[0]), line, above)
    return image[..., :3].astype(np.uint8)


def _unfiltered(kind: int, line: Any, above: Any) -> Any:
    if kind == 0:
        return line
    if kind == 1:
        return np.cumsum(line, axis=0) % 256
    if kind == 2:
        return (line + above) % 256
    left = upper_left = np.zeros(line.shape[1], np.int64)
    found = np.empty_like(line)
    for x, value in enumerate(line):
        up = above[x]
        if kind == 3:
            guess = (left + up) // 2
        else:
            tries = np.stack([left, up, upper_left])
            nearest = np.abs(left + up - upper_left - tries).argmin(axis=0)
            guess = tries[nearest, np.arange(len(nearest))]
        left = found[x] = (value + guess) % 256
        upper_left = up
    return found


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One process for all tests."""
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        pytest.fail("no Chromium: apt-get install chromium")
    running = Browser(program, tmp_path_factory.mktemp("browser"))
    yield running
    running.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Any]:
    """Opens a file at a width, in light or dark."""
    opened = []

    def open_(path: Path, *, width: int, dark: bool = False) -> Page:
        opened.append(Page(browser, path.as_uri(), width=width, dark=dark))
        return opened[-1]

    yield open_
    for page in opened:
        page.close()
