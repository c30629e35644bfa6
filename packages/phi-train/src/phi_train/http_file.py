"""A file on an HTTP server, from any byte on, and what the server says of it.

Knows the Hugging Face hub's way: the answer that redirects to the storage carries the file's
SHA-256 as X-Linked-ETag and its size as X-Linked-Size. Elsewhere an ETag of 64 hexadecimal digits
is taken for a SHA-256.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from typing import IO, Any

from phi_train.errors import DataError

__all__ = ["Answer", "Interrupted", "OutOfRange", "Remote", "open_url"]

TIMEOUT = 30.0  # seconds without a sign of life
SHA256 = re.compile(r"[0-9a-f]{64}")
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
TRY_AGAIN = (408, 425, 429)  # and everything from 500: the server's own trouble


class Interrupted(Exception):
    """The connection broke, or the server is in trouble: worth another try."""


class OutOfRange(Interrupted):
    """The file has no byte where the answer was to begin: it is another, or there is no rest."""


@dataclass(frozen=True)
class Remote:
    """What a server says of a file."""

    sha256: str  # empty: not published
    validator: str  # a strong ETag or a date, to ask whether it is still the same; empty: none
    size: int  # bytes; -1: not said

    def is_still(self, known: Remote) -> bool:
        """Whether this can be the file that was `known` at an earlier try."""
        if self.sha256 and known.sha256:
            return self.sha256 == known.sha256
        return bool(self.validator) and self.validator == known.validator


class Answer:
    """A body that begins at byte `begin` of the file."""

    def __init__(self, url: str, body: IO[bytes], remote: Remote, begin: int) -> None:
        self.url, self.remote, self.begin = url, remote, begin
        self._body = body

    def blocks(self, size: int) -> Iterator[bytes]:
        """The body, some bytes at a time. Raises Interrupted."""
        while True:
            try:
                block = self._body.read(size)
            except (OSError, http.client.HTTPException) as error:
                raise Interrupted(f"{self.url} broke off: {error}") from error
            if not block:
                return
            yield block


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps what the first answer said of the file."""

    linked: Message | None = None

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if self.linked is None and "X-Linked-ETag" in headers:
            self.linked = headers
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def open_url(url: str, *, begin: int = 0, validator: str = "") -> Iterator[Answer]:
    """The file at `url` from byte `begin` on, if it is still what `validator` stands for.

    A server may send all of it in any case: see Answer.begin. Raises Interrupted for what may
    pass, DataError for what will not.
    """
    if not url.startswith(("http://", "https://")):
        raise DataError(f"{url} is no http:// or https:// address")
    request = urllib.request.Request(url, headers={"User-Agent": "phi-train"})
    if begin:
        request.add_header("Range", f"bytes={begin}-")
        if validator:
            request.add_header("If-Range", validator)
    redirects = _Redirects()
    try:
        response = urllib.request.build_opener(redirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        what = f"{url}: the server answers {error.code} {error.reason}"
        if error.code == 416:
            raise OutOfRange(what) from error
        if error.code in TRY_AGAIN or error.code >= 500:
            raise Interrupted(what) from error
        raise DataError(f"{what}; has the file moved?") from error
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(f"{url} cannot be reached: {_reason(error)}") from error
    with response:
        place = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        partial = response.status == 206 and place is not None
        remote = _remote(response.headers, redirects.linked, place if partial else None)
        yield Answer(url, response, remote, int(place[1]) if partial and place else 0)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)


def _remote(headers: Message, linked: Message | None, place: re.Match[str] | None) -> Remote:
    etag = headers.get("ETag", "")
    published = linked.get("X-Linked-ETag", "") if linked is not None else etag
    sha256 = published.removeprefix("W/").strip('"').lower()
    size = headers.get("Content-Length", "") if place is None else place[2]
    if linked is not None and linked.get("X-Linked-Size"):
        size = linked["X-Linked-Size"]
    return Remote(
        sha256 if SHA256.fullmatch(sha256) else "",
        etag if etag.startswith('"') else headers.get("Last-Modified", ""),
        int(size) if size.isdecimal() else -1,
    )
