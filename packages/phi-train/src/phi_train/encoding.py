"""Parts of a source to token ids, in as many processes as wanted; the order stays.

Only a few parts are on their way at a time, so memory does not grow with the source.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_tokenizer import Tokenizer
from phi_train.errors import PhiTrainError
from phi_train.ranges import Part, pieces_in
from phi_train.split import Side, Split
from phi_train.tokens import end_token_of

__all__ = ["Encoded", "encode_part", "encode_parts"]

Array = NDArray[Any]
Encoded = dict[Side, tuple[Array, Array, Array]]
"""Side -> (ids, ends, sizes), as ShardWriter.append takes them."""

AHEAD = 2  # parts a worker may have waiting

_tokenizer: Tokenizer


def encode_parts(
    parts: Iterable[Part], split: Split, tokenizer: Tokenizer, *, workers: int = 1
) -> Generator[tuple[Part, Encoded], None, None]:
    """Each part with its ids, in order; with one worker in this process.

    Raises DataError for text that cannot be used, PhiTrainError when a worker was killed.
    """
    if workers == 1:
        for part in parts:
            yield part, encode_part(part, split, tokenizer)
        return
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),  # no state of this process
        initializer=_start,
        initargs=(tokenizer.to_bytes(),),
    )
    waiting: deque[tuple[Part, Future[Encoded]]] = deque()
    try:
        for part in parts:
            waiting.append((part, pool.submit(_encode, part, split)))
            if len(waiting) > AHEAD * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    except BrokenProcessPool as error:
        raise PhiTrainError(
            "a worker process was ended from outside (too little memory?): run the same command "
            "again, it goes on from here; --workers 1 needs least memory"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start(tokenizer: bytes) -> None:
    global _tokenizer  # noqa: PLW0603 (one for the life of a worker)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _tokenizer = Tokenizer.from_bytes(tokenizer)


def _leave_with_parent() -> None:
    """A parent that is killed cannot end its workers: they end themselves."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _encode(part: Part, split: Split) -> Encoded:
    return encode_part(part, split, _tokenizer)


def encode_part(part: Part, split: Split, tokenizer: Tokenizer) -> Encoded:
    """The documents of one part, by side."""
    ended: dict[Side, list[str]] = {"train": [], "valid": []}
    going_on: dict[Side, str] = {}
    for piece in pieces_in(part):
        for side, text, ends_here in split.divide(piece):
            if ends_here:
                ended[side].append(text)
            else:
                going_on[side] = text
    return {
        side: _encode_side(texts, going_on.get(side), tokenizer)
        for side, texts in ended.items()
        if texts or side in going_on
    }


def _encode_side(
    texts: list[str], going_on: str | None, tokenizer: Tokenizer
) -> tuple[Array, Array, Array]:
    ids, ends = tokenizer.encode_batch_to_numpy(
        texts, disallowed_special=(), append=end_token_of(tokenizer)
    )
    if going_on is not None:
        more = tokenizer.encode_to_numpy(going_on, disallowed_special=())
        ids = np.concatenate([ids, more])
        texts = [*texts, going_on]
    return ids, ends, np.array([len(text.encode()) for text in texts], np.int64)
