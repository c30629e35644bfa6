"""Downloads from a server on this machine that does everything a server can do wrong."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import phi_train.fetch
from phi_train import DataError
from phi_train.datasets import DATASETS, Dataset, dataset_file
from phi_train.fetch import TRIES, download, fetch
from phi_train.one_process import only_one

CONTENT = random.Random(0).randbytes(700_001)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Plan:
    """What the server does; `moods` are taken one a request, the last one for ever."""

    content: bytes = CONTENT
    etag: str = '"one"'
    publish: bool = True  # X-Linked-ETag on a redirect, as the Hugging Face hub has it
    moods: list[str] = field(default_factory=lambda: [""])
    requests: list[dict[str, str]] = field(default_factory=list)

    def mood(self) -> str:
        return self.moods.pop(0) if len(self.moods) > 1 else self.moods[0]


class Handler(BaseHTTPRequestHandler):
    plan: Plan

    def log_message(self, *_):
        pass

    def do_GET(self):
        plan = self.plan
        if self.path.startswith("/resolve/"):
            if "missing" in self.path:
                self.send_error(404)
                return
            self.send_response(302)
            self.send_header("Location", "/storage/" + self.path.rpartition("/")[2])
            self.send_header("ETag", '"of the redirect"')
            if plan.publish:
                self.send_header("X-Linked-ETag", f'"{hashlib.sha256(plan.content).hexdigest()}"')
                self.send_header("X-Linked-Size", str(len(plan.content)))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        plan.requests.append(dict(self.headers))
        self._send(plan, plan.mood())

    def _send(self, plan, mood):
        if mood.isdecimal():
            self.send_error(int(mood))
        elif mood == "hang up":
            self.connection.close()
        else:
            begin = self._begin(plan, mood)
            if begin >= 0:
                self._body(plan, mood, plan.content[begin:])

    def _begin(self, plan, mood):
        """Answers where the body begins; -1 when there is nothing there."""
        content, begin = plan.content, 0
        asked = self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, plan.etag)
        if asked and mood != "ignore range" and (same or mood == "ignore if-range"):
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
            if begin >= len(content):
                self.send_error(416)
                return -1
            if mood == "other range":
                begin -= 7
            self.send_response(206)
            last, total = len(content) - 1, len(content)
            self.send_header("Content-Range", f"bytes {begin}-{last}/{total}")
        else:
            self.send_response(200)
        return begin

    def _body(self, plan, mood, body):
        length = len(body)
        if mood == "garbage":
            body = bytes(length)
        elif mood == "says more":
            length += 1000
        elif mood == "says less":
            length -= 1000
        elif mood == "break off":
            body = body[: max(1, length // 3)]
        elif mood == "stop at 1000":
            body = body[: max(0, 1000 - len(plan.content) + length)]
        if mood != "no length":
            self.send_header("Content-Length", str(length))
        if plan.etag:
            self.send_header("ETag", plan.etag)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client has what it wanted
            self.wfile.write(body)
        self.close_connection = True


@pytest.fixture
def server(monkeypatch):
    """(plan, address of the file)"""
    monkeypatch.setenv("no_proxy", "*")
    plan = Plan()
    handler = type("Planned", (Handler,), {"plan": plan})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield plan, f"http://127.0.0.1:{http.server_port}/resolve/text.txt"
        http.shutdown()
        thread.join()


@pytest.fixture
def get(server, tmp_path):
    """Downloads to text.txt; pauses are noted, not waited for."""
    _, url = server
    pauses: list[float] = []

    def once(url=url, **options):
        return download(url, tmp_path / "text.txt", sleep=pauses.append, **options)

    once.pauses = pauses
    once.path = tmp_path / "text.txt"
    return once


def whole(path, content=CONTENT):
    """The file is there, with its record, and nothing else."""
    assert path.read_bytes() == content
    assert sorted(p.name for p in path.parent.iterdir()) == ["text.txt", "text.txt.json"]
    record = json.loads((path.parent / "text.txt.json").read_text())
    assert record["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_file_and_its_published_checksum(server, get):
    plan, _ = server
    seen = []
    done = get(progress=lambda *told: seen.append(told))
    assert (done.path, done.already, done.sha256, done.published) == (get.path, False, SHA256, True)
    whole(get.path)
    assert len(plan.requests) == 1
    size = len(CONTENT)
    assert seen[0] == ("fetching text.txt", 0, size)
    assert ("fetching text.txt", size, size) in seen
    assert seen[-1] == ("checking text.txt", size, size)


def test_a_second_time_nothing_is_asked(server, get):
    plan, _ = server
    get()
    again = get()
    assert again.already
    assert again.published
    assert len(plan.requests) == 1


def test_a_checksum_that_nobody_publishes_is_recorded(server, get):
    plan, _ = server
    plan.publish = False
    assert not get().published
    whole(get.path)
    assert get().already
    assert len(plan.requests) == 1


def test_an_etag_that_is_a_checksum_counts(server, get):
    plan, _ = server
    plan.publish, plan.etag = False, f'"{SHA256}"'
    assert get().published
    plan.etag = f'"{"0" * 64}"'
    get.path.unlink()
    with pytest.raises(DataError, match="came damaged twice"):
        get()


@pytest.mark.parametrize("publish", [True, False])
def test_it_goes_on_where_it_broke_off(server, get, publish):
    plan, _ = server
    plan.publish, plan.moods = publish, ["break off", "break off", ""]
    get()
    whole(get.path)
    ranges = [r.get("Range") for r in plan.requests]
    third = len(CONTENT) // 3
    assert ranges == [None, f"bytes={third}-", f"bytes={third + (len(CONTENT) - third) // 3}-"]
    assert plan.requests[1]["If-Range"] == plan.etag
    assert get.pauses == [1.0, 1.0]  # each try brought something


def test_the_next_call_goes_on_too(server, get):
    plan, _ = server
    plan.moods = ["break off", "503"]
    with pytest.raises(DataError, match=r"answers 503 .*run the same command again to go on"):
        get()
    assert not get.path.exists()
    assert get.pauses == [1.0, 1.0, 2.0, 4.0, 8.0]
    plan.moods = [""]
    get()
    whole(get.path)
    assert plan.requests[-1]["Range"] == f"bytes={len(CONTENT) // 3}-"


@pytest.mark.parametrize("mood", ["500", "503", "429", "408", "hang up"])
def test_trouble_that_passes(server, get, mood):
    plan, _ = server
    plan.moods = [mood, mood, ""]
    get()
    whole(get.path)
    assert get.pauses == [1.0, 2.0]


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_what_will_not_pass_is_told_at_once(server, get, code):
    plan, _ = server
    plan.moods = [str(code)]
    with pytest.raises(DataError, match=rf"text\.txt: the server answers {code} "):
        get()
    assert len(plan.requests) == 1
    assert list(get.path.parent.iterdir()) == []


def test_a_server_that_is_not_there(get):
    with pytest.raises(DataError, match=r"cannot be reached: .*run the same command again"):
        get("http://127.0.0.1:9/text.txt")
    assert len(get.pauses) == TRIES - 1
    with pytest.raises(DataError, match="is no http:// or https:// address"):
        get("file:///etc/passwd")


@pytest.mark.parametrize("mood", ["ignore range", "other range"])
def test_a_server_without_ranges_begins_again(server, get, mood):
    plan, _ = server
    plan.moods = ["break off", mood, ""]
    get()
    whole(get.path)


def test_a_length_that_is_too_large(server, get):
    """Where only the server that lies says how long the file is, it can never be complete."""
    plan, _ = server
    plan.publish, plan.moods = False, ["says more"]
    with pytest.raises(DataError, match="run the same command again"):
        get()
    assert not get.path.exists()
    assert len(plan.requests) < 30
    plan.moods = [""]
    get()
    whole(get.path)


def test_a_length_that_is_too_large_but_the_true_one_is_published(server, get):
    plan, _ = server
    plan.moods = ["says more"]
    get()
    whole(get.path)


def test_a_length_that_is_too_small(server, get):
    """The rest is asked for: the hub has told the true size."""
    plan, _ = server
    plan.moods = ["says less", ""]
    get()
    whole(get.path)


def test_it_does_not_try_for_ever_where_nothing_more_comes(server, get):
    plan, _ = server
    plan.moods = ["stop at 1000"]
    with pytest.raises(DataError, match=r"broke off after 1,000 of 700,001 bytes"):
        get()
    assert len(plan.requests) < 12


def test_without_a_length(server, get):
    plan, _ = server
    plan.publish, plan.moods = False, ["no length"]
    get()
    whole(get.path)


def test_complete_but_killed_before_it_was_known(server, get):
    """Without a length the server must be asked: it has nothing more, so all of it comes anew."""
    plan, url = server
    plan.publish = False
    (get.path.parent / "text.txt.part").write_bytes(CONTENT)
    state = {"url": url, "sha256": "", "validator": plan.etag, "size": -1}
    (get.path.parent / "text.txt.part.json").write_text(json.dumps(state))
    get()
    whole(get.path)


def test_garbage_gets_a_second_chance(server, get):
    plan, _ = server
    plan.moods = ["garbage", ""]
    get()
    whole(get.path)
    plan.moods = ["garbage"]
    get.path.unlink()
    with pytest.raises(DataError, match=r"came damaged twice: its SHA-256 is .* the server says"):
        get()
    assert [p.name for p in get.path.parent.iterdir()] == ["text.txt.json"]


def test_garbage_in_front_of_a_good_rest(server, get):
    plan, url = server
    (get.path.parent / "text.txt.part").write_bytes(bytes(5000))
    state = {"url": url, "sha256": SHA256, "validator": plan.etag, "size": len(CONTENT)}
    (get.path.parent / "text.txt.part.json").write_text(json.dumps(state))
    get()
    whole(get.path)
    assert [r.get("Range") for r in plan.requests] == ["bytes=5000-", None]


@pytest.mark.parametrize("publish", [True, False])
@pytest.mark.parametrize("mood", ["", "ignore if-range"])
def test_a_file_that_changes_between_two_tries(server, get, publish, mood):
    plan, _ = server
    new = CONTENT[::-1]
    plan.publish, plan.moods = publish, ["break off", "503"]
    with pytest.raises(DataError, match="503"):
        get()
    plan.content, plan.etag, plan.moods = new, '"two"', [mood]
    get()
    whole(get.path, new)


def test_without_anything_to_tell_it_by_a_part_is_not_gone_on_with(server, get):
    plan, _ = server
    plan.publish, plan.etag, plan.moods = False, "", ["break off", ""]
    get()
    whole(get.path)
    assert [r.get("Range") for r in plan.requests] == [None, None]


@pytest.mark.parametrize("state", ["", "[1]", "{}", '{"url": "http://other/"}'])
def test_a_part_of_unknown_origin_is_dropped(get, state):
    (get.path.parent / "text.txt.part").write_bytes(b"x" * 1000)
    (get.path.parent / "text.txt.part.json").write_text(state)
    get()
    whole(get.path)


# the record


@pytest.mark.parametrize("publish", [True, False])
def test_the_first_download_decides_what_the_file_is(server, get, publish):
    plan, _ = server
    plan.publish = publish
    get()
    get.path.write_bytes(CONTENT[:-1] + b"?")
    get()  # damaged on the disk: loaded again
    whole(get.path)
    get.path.unlink()
    plan.content = b"Something else."
    plan.etag = '"two"'
    with pytest.raises(DataError, match=r"not the file that was downloaded first.*remove .*\.json"):
        get()
    assert not get.path.exists()
    get.path.with_name("text.txt.json").unlink()
    get()
    whole(get.path, b"Something else.")


def test_a_file_from_elsewhere(server, get):
    plan, _ = server
    get.path.write_bytes(CONTENT)
    assert get().already
    whole(get.path)
    get.path.with_name("text.txt.json").unlink()
    get.path.write_bytes(b"mine")
    with pytest.raises(DataError, match="is there, but it is not http"):
        get()
    assert get.path.read_bytes() == b"mine"
    assert len(plan.requests) == 2


# the disk


def test_a_full_disk_names_the_file(server, get, monkeypatch):
    plan, _ = server

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def tell(self):
            return 0

        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    opened = type(get.path).open
    with monkeypatch.context() as patch:
        patch.setattr(
            type(get.path),
            "open",
            lambda self, mode="r", *a, **k: (
                Full(opened(self, mode)) if mode == "ab" else opened(self, mode, *a, **k)
            ),
        )
        with pytest.raises(OSError, match="No space left") as caught:
            get()
    assert caught.value.filename.endswith("text.txt.part")
    get()
    whole(get.path)
    assert len(plan.requests) == 2


def test_two_at_once_are_refused(get):
    with only_one(get.path.parent), pytest.raises(DataError, match="another process is at work"):
        get()


def test_kill_9_while_it_loads(server, tmp_path, monkeypatch):
    """A slow server, a killed process, and a second one that asks for the rest alone."""
    plan, url = server
    monkeypatch.setattr(Handler, "_send", _slowly)
    path = tmp_path / "text.txt"
    code = "import sys; from phi_train.fetch import download; download(*sys.argv[1:])"
    child = subprocess.Popen([sys.executable, "-c", code, url, str(path)])
    part = tmp_path / "text.txt.part"
    until = time.monotonic() + 20
    while (not part.exists() or part.stat().st_size < 250_000) and time.monotonic() < until:
        time.sleep(0.01)
    child.kill()
    child.wait()
    size = part.stat().st_size
    assert 0 < size < len(CONTENT)
    monkeypatch.undo()
    download(url, path)
    whole(path)
    assert plan.requests[-1]["Range"] == f"bytes={size}-"


def _slowly(self, plan, _mood):
    self.send_response(200)
    self.send_header("Content-Length", str(len(plan.content)))
    self.send_header("ETag", plan.etag)
    self.end_headers()
    try:
        for begin in range(0, len(plan.content), 50_000):
            self.wfile.write(plan.content[begin : begin + 50_000])
            time.sleep(0.1)
    except ConnectionError:
        self.close_connection = True


# a dataset


def test_a_dataset_is_found_afterwards(server, tmp_path, monkeypatch):
    plan, url = server
    plan.content = b"One.<|endoftext|>Two."
    base = url.rpartition("/")[0]
    small = Dataset("small", f"{base}/train.txt", f"{base}/valid.txt")
    monkeypatch.setitem(DATASETS, "small", small)
    monkeypatch.setenv("PHI_DATA", str(tmp_path))
    files = fetch(small)
    assert [f.path.name for f in files] == ["valid.txt", "train.txt"]
    assert dataset_file("small", held_out=True) == files[0].path == tmp_path / "small/valid.txt"
    elsewhere = fetch(small, folder=tmp_path / "other")
    assert elsewhere[1].path == tmp_path / "other/small/train.txt"
    assert phi_train.fetch.data_folder() == tmp_path


def test_the_command_line(server, tmp_path, monkeypatch, capsys):
    from phi_train import cli  # noqa: PLC0415

    _, url = server
    base = url.rpartition("/")[0]
    monkeypatch.setitem(DATASETS, "small", Dataset("small", f"{base}/train.txt", f"{base}/v.txt"))
    monkeypatch.setenv("PHI_DATA", str(tmp_path / "data"))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["phi-train", "data", "fetch", *arguments])
        with pytest.raises(SystemExit) as leave:
            cli.main()
        said = capsys.readouterr()
        return leave.value.code, said.out.splitlines(), said.err.splitlines()

    code, out, errors = call("small")
    assert (code, errors) == (0, [])
    assert out[0].startswith(f"{tmp_path}/data/small/v.txt: downloaded (SHA-256 {SHA256[:12]}")
    assert out[-1] == "make it ready with: phi-train data prepare small --out small-tokens"
    assert "is there and sound" in call("small")[1][0]
    _, out, _ = call("small", "--dir", str(tmp_path / "else"))
    assert f"export PHI_DATA={tmp_path / 'else'}" in out[2]
    code, _, (line,) = call("large")
    assert code == 1
    assert line == "phi-train: error: no dataset is called 'large'; there is tinystories, small"
    assert not os.path.exists(tmp_path / "data" / "large")
