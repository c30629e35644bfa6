"""Downloading a dataset once: resumed where it broke off, checked, in place only when whole.

Beside FILE there is FILE.json: where it came from and its SHA-256, the one that the server
publishes where it does. It is written at the first download and holds from then on: another
content is refused. What is not finished waits as FILE.part with FILE.part.json, and is gone on
with only if the server says that it still has the same file.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from phi_model.files import atomic_write
from phi_train.datasets import Dataset, data_folder
from phi_train.errors import DataError
from phi_train.http_file import Answer, Interrupted, OutOfRange, Remote, open_url
from phi_train.one_process import only_one
from phi_train.run_folder import naming

__all__ = ["Fetched", "download", "fetch"]

Progress = Callable[[str, int, int], None]
T = TypeVar("T")

TRIES = 5  # in a row without a new byte
PAUSE = 1.0  # seconds before the second; twice as long before each further one
BLOCK = 1 << 18  # bytes


@dataclass(frozen=True)
class Fetched:
    """One file of a dataset."""

    path: Path
    already: bool  # True: it was there and sound
    sha256: str
    published: bool  # whether the server told the checksum


def fetch(
    dataset: Dataset,
    *,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> list[Fetched]:
    """Both files of a dataset, the small one first, in `folder` (data_folder by default).

    Raises as `download` does.
    """
    where = (data_folder() if folder is None else Path(folder)) / dataset.name
    return [
        download(url, where / url.rpartition("/")[2], progress=progress)
        for url in (dataset.valid, dataset.train)
    ]


def download(
    url: str,
    path: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Fetched:
    """The file at `url`, as `path`; nothing is loaded when it is there and sound.

    Raises DataError when it cannot be had or is not what it should be; OSError when it cannot be
    written. What has come so far stays, and the next call goes on.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with only_one(target.parent):
        return _Download(url, target, progress or (lambda *_: None), sleep).run()


class _Download:
    def __init__(
        self, url: str, path: Path, progress: Progress, sleep: Callable[[float], None]
    ) -> None:
        self.url, self.path, self.progress, self.sleep = url, path, progress, sleep
        self.record = path.with_name(path.name + ".json")
        self.part = path.with_name(path.name + ".part")
        self.state = path.with_name(path.name + ".part.json")

    def run(self) -> Fetched:
        recorded = str(_read_json(self.record).get("sha256", ""))
        if self.path.exists() and (found := self._found(recorded)) is not None:
            return found
        remote, sha256 = self._whole()
        if recorded and sha256 != recorded:
            self._drop()
            raise DataError(
                f"{self.url} is not the file that was downloaded first (SHA-256 {sha256}, then "
                f"{recorded}): remove {self.record} to take the new one"
            )
        with naming(self.part), self.part.open("rb") as file:
            os.fsync(file.fileno())
        self._write_record(remote, sha256)
        os.replace(self.part, self.path)
        self.state.unlink(missing_ok=True)
        return Fetched(self.path, False, sha256, bool(remote.sha256))

    def _found(self, recorded: str) -> Fetched | None:
        """The file that is there, if it is sound; None when it is to be loaded again."""
        sha256 = self._sha256(self.path)
        if recorded:
            published = bool(_read_json(self.record).get("published"))
            return Fetched(self.path, True, sha256, published) if sha256 == recorded else None

        def ask() -> Remote:
            with open_url(self.url) as answer:
                return answer.remote

        remote = self._persistently(ask)
        if sha256 != remote.sha256:
            raise DataError(
                f"{self.path} is there, but it is not {self.url}: move it away, or use another "
                "folder"
            )
        self._write_record(remote, sha256)
        return Fetched(self.path, True, sha256, True)

    def _whole(self) -> tuple[Remote, str]:
        """Completes FILE.part; a wrong one gets a second chance, from its first byte."""
        for _ in range(2):
            remote = self._persistently(self._get_rest)
            sha256 = self._sha256(self.part)
            if remote.sha256 in ("", sha256):
                return remote, sha256
            self._drop()
        raise DataError(
            f"{self.url} came damaged twice: its SHA-256 is {sha256}, the server says "
            f"{remote.sha256}; try again later, or from another network"
        )

    def _persistently(self, once: Callable[[], T]) -> T:
        """Tries again, after longer and longer pauses, until nothing more comes."""
        failures, most = 0, self._size()
        while True:
            try:
                return once()
            except Interrupted as error:
                failures = 0 if self._size() > most else failures + 1
                most = max(most, self._size())
                if failures >= TRIES:
                    raise DataError(f"{error}; run the same command again to go on") from error
                self.sleep(PAUSE * 2 ** max(0, failures - 1))

    def _get_rest(self) -> Remote:
        """One try to complete FILE.part."""
        known = self._known()
        begin = 0 if known is None else self._size()
        if known is not None and begin == known.size:
            return known
        validator = "" if known is None else known.validator
        try:
            with open_url(self.url, begin=begin, validator=validator) as answer:
                return self._copy(answer, begin, known)
        except OutOfRange:
            self._drop()
            raise

    def _copy(self, answer: Answer, begin: int, known: Remote | None) -> Remote:
        """The body to its place in FILE.part. Raises Interrupted unless it completes it."""
        if answer.begin not in (0, begin):
            raise OutOfRange(f"{self.url}: the server sends other bytes than were asked for")
        if answer.begin and known is not None and not answer.remote.is_still(known):
            raise OutOfRange(f"{self.url} was changed meanwhile")
        if not answer.begin:
            self._drop()  # before the state changes: the old bytes are not of this file
        self._write_json(self.state, {"url": self.url, **asdict(answer.remote)})
        phase, total = f"fetching {self.path.name}", max(0, answer.remote.size)
        with naming(self.part), self.part.open("ab") as file:
            done = file.tell()
            self.progress(phase, done, total)
            for block in answer.blocks(BLOCK):
                file.write(block)
                done += len(block)
                self.progress(phase, done, total)
        if answer.remote.size not in (-1, done):
            raise Interrupted(f"{self.url} broke off after {done:,} of {total:,} bytes")
        return answer.remote

    def _known(self) -> Remote | None:
        """What was said of the part that is there, if that is enough to go on with it."""
        state = _read_json(self.state)
        try:
            remote = Remote(str(state["sha256"]), str(state["validator"]), int(state["size"]))
        except (KeyError, ValueError, TypeError):
            return None
        resumable = state.get("url") == self.url and (remote.sha256 or remote.validator)
        fits = remote.size < 0 or self._size() <= remote.size
        return remote if resumable and fits and self._size() else None

    # files

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _sha256(self, path: Path) -> str:
        digest, done, total = hashlib.sha256(), 0, path.stat().st_size
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
                done += len(block)
                self.progress(f"checking {self.path.name}", done, total)
        return digest.hexdigest()

    def _drop(self) -> None:
        self.state.unlink(missing_ok=True)
        self.part.unlink(missing_ok=True)

    def _write_record(self, remote: Remote, sha256: str) -> None:
        entry = {"url": self.url, "sha256": sha256, "published": bool(remote.sha256)}
        self._write_json(self.record, entry)

    def _write_json(self, path: Path, content: dict[str, Any]) -> None:
        with atomic_write(path) as file:
            file.write(json.dumps(content).encode())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}
