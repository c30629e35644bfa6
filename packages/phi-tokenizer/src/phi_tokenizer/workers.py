"""Encoding a batch in several processes."""

import itertools
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from phi_tokenizer.tokenizer import Tokenizer

__all__ = ["encode_in_workers"]

_CHARACTERS = 1 << 20  # a task: large enough for its costs, small enough to balance

_tokenizer: "Tokenizer"


def encode_in_workers(
    data: bytes, texts: Iterable[str], workers: int, options: dict[str, Any]
) -> list[list[int]]:
    """`Tokenizer.encode_batch` by `workers` processes, each started afresh.

    Args:
        data: the content of a tokenizer.json.
        texts: the texts.
        workers: how many processes.
        options: the arguments of `encode_batch_to_numpy`.
    """
    context = multiprocessing.get_context("spawn")  # no state of this process, on every system
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start, initargs=(data,)
    ) as pool:
        results = pool.map(_encode, _tasks(texts), itertools.repeat(options))
        return [
            part.tolist() for ids, ends in results for part in np.split(ids, ends[:-1]) if ends.size
        ]


def _start(data: bytes) -> None:
    from phi_tokenizer.tokenizer import Tokenizer  # noqa: PLC0415 (it imports this module)

    global _tokenizer  # noqa: PLW0603 (one for the life of a worker)
    _tokenizer = Tokenizer.from_bytes(data)


def _encode(
    texts: list[str], options: dict[str, Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    return _tokenizer.encode_batch_to_numpy(texts, **options)


def _tasks(texts: Iterable[str]) -> Iterator[list[str]]:
    task: list[str] = []
    size = 0
    for text in texts:
        task.append(text)
        size += len(text)
        if size >= _CHARACTERS:
            yield task
            task, size = [], 0
    if task:
        yield task
