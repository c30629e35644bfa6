"""What a SOURCE means for training and for measuring: documents, and, where the source knows it,
the probability of each.

A prepared folder gives its two sides back as text; a dataset with a name, such as `tinystories`,
has a file for each. `builtin` is the project's own story grammar (phi_train.stories): endless,
and its stories know their exact log-probability, so a model's distance from the best possible
one can be told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from phi_train.config import TrainConfig
from phi_train.datasets import DATASETS, dataset_file
from phi_train.documents import documents
from phi_train.errors import DataError
from phi_train.shards import PreparedData, is_prepared, open_prepared
from phi_train.tokens import TokenStream, split_documents

__all__ = [
    "BUILTIN",
    "Corpus",
    "builtin_stories",
    "documents_to_measure",
    "has_two_sides",
    "open_corpus",
    "stories_for",
    "with_stories",
]

BUILTIN = "builtin"
TRAINING_SEED = 0  # of the story streams: the data is the same whatever the run's own seed
VALIDATION_SEED = 1
VALIDATION_STORIES = 1000  # about 0.35 MB of text: measured in seconds, to 0.2 % or so
STORIES = 20_000  # where no budget says how many are needed
TOKENS_A_STORY = 90  # of a vocabulary of 1,024; a little low, so that there are enough
FEWEST_STORIES, MOST_STORIES = 2_000, 200_000


@dataclass(frozen=True)
class Corpus:
    """Documents to train on and documents held out; nats, where known, are -log p of each."""

    train: list[str]
    valid: list[str]
    valid_nats: list[float] | None = None


def stories_for(tokens: int) -> int:
    """How many stories a budget of `tokens` sees about once each."""
    return max(FEWEST_STORIES, min(MOST_STORIES, -(-tokens // TOKENS_A_STORY)))


def with_stories(config: TrainConfig) -> TrainConfig:
    """The config with a number of builtin stories, where it leaves that to the budget."""
    if config.data != BUILTIN or config.stories:
        return config
    shape = config.model_config(config.vocab_size)
    tokens = config.total_steps(shape) * config.tokens_per_step
    return replace(config, stories=stories_for(tokens) if tokens else STORIES)


def builtin_stories(n: int, *, validation: bool) -> tuple[list[str], list[float]]:
    """The first n stories of a side, and the nats of each: -log p(story), its end included.

    A story's side is decided by a hash of its text, so none is on both.
    """
    from phi_train.stories import stories  # noqa: PLC0415 (builds the grammar: tens of ms)

    stream = (
        stories(VALIDATION_SEED, split="validation")
        if validation
        else stories(TRAINING_SEED, split="train")
    )
    chosen = list(islice(stream, n))
    return [story.text for story in chosen], [-story.log_prob for story in chosen]


def open_corpus(data: str, valid: str = "", *, n_stories: int = STORIES) -> Corpus:
    """Both sides of a source. Without `valid` a part of `data` is held out, by hash.

    n_stories: how many to train on when data is `builtin`. Raises DataError.
    """
    nats = None
    if data == BUILTIN:
        train, _ = builtin_stories(n_stories, validation=False)
        held_out, nats = documents_to_measure(valid or BUILTIN)
    elif valid or has_two_sides(data):
        train = _documents_to_train_on(data)
        held_out, nats = documents_to_measure(valid or data)
    else:
        train, held_out = split_documents(documents(data))
    if not train:
        raise DataError(f"{data} holds no text: nothing but white space was found")
    return Corpus(train, held_out, nats)


def has_two_sides(source: str) -> bool:
    """Whether a source comes with documents to measure on, so that none need be held out."""
    return source == BUILTIN or source in DATASETS or is_prepared(source)


def documents_to_measure(source: str) -> tuple[list[str], list[float] | None]:
    """The documents to measure a model on, and their nats where the source knows them."""
    if source == BUILTIN:
        return builtin_stories(VALIDATION_STORIES, validation=True)
    if source in DATASETS:
        return list(documents(dataset_file(source, held_out=True))), None
    if is_prepared(source):
        prepared = open_prepared(source, verify=True)
        nats = prepared.valid.source_nats
        return list(_texts(prepared, prepared.valid)), None if nats is None else nats.tolist()
    return list(documents(source)), None


def _documents_to_train_on(source: str) -> list[str]:
    if source in DATASETS:
        return list(documents(dataset_file(source, held_out=False)))
    if is_prepared(source):
        prepared = open_prepared(source, verify=True)
        return list(_texts(prepared, prepared.train))
    return list(documents(source))


def _texts(prepared: PreparedData, stream: TokenStream) -> Iterator[str]:
    """The documents of one side, as they were before they became tokens."""
    begin = 0
    for end in (stream.ids == stream.end_token).nonzero()[0].tolist():
        yield prepared.tokenizer.decode(stream.ids[begin:end])
        begin = end + 1
