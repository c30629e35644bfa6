"""What a run reads: its tokenizer, the tokens to train on, those to measure on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from phi_tokenizer import Tokenizer
from phi_train.config import TrainConfig
from phi_train.corpus import BUILTIN, open_corpus
from phi_train.datasets import DATASETS, data_folder, dataset_file
from phi_train.documents import END_OF_TEXT, files_of
from phi_train.shards import is_prepared, open_prepared
from phi_train.tokens import TokenStream, encode_documents

__all__ = ["RunData", "open_run_data"]

Say = Callable[[str], None]

# bytes of files: the text of longer ones would fill a phone's memory. A tokenizer is learnt from
# all of a text up to this length (prepare.SAMPLE_BYTES), so both ways give the same run
LARGE = 1 << 26


@dataclass(frozen=True)
class RunData:
    """Both sides of the text, as one tokenizer sees them."""

    tokenizer: Tokenizer
    train: TokenStream
    valid: TokenStream


def open_run_data(config: TrainConfig, saved_tokenizer: bytes | None, say: Say) -> RunData:
    """Reads the data of `config`; long texts by way of token shards in the cache folder.

    saved_tokenizer: of the checkpoint that the run goes on from or begins with; otherwise the
    config names one, or one is learnt. say: called with a line for each thing done.
    """
    data = (
        _prepared(config, saved_tokenizer)
        or _prepared_now(config, saved_tokenizer, say)
        or _fresh(config, saved_tokenizer, say)
    )
    train, valid = data.train, data.valid
    say(
        f"data: {train.n_documents:,} documents, {train.ids.size:,} tokens to train on "
        f"({train.text_bytes / train.ids.size:.2f} bytes a token); "
        f"{valid.n_documents:,} documents, {valid.ids.size:,} tokens held out"
    )
    return data


def _prepared(config: TrainConfig, saved_tokenizer: bytes | None) -> RunData | None:
    """Token shards that `phi-train data prepare` has written; None where there are none, or the
    run has another tokenizer or other text to measure on: then their text is read.
    """
    if config.valid or not is_prepared(config.data):
        return None
    size = sum(path.stat().st_size for path in Path(config.data).glob("*.tokens"))
    opened = open_prepared(config.data, verify=size <= LARGE)  # longer ones would take seconds
    wanted = saved_tokenizer
    if wanted is None and config.tokenizer:
        wanted = Tokenizer.load(config.tokenizer).to_bytes()
    if wanted is not None and wanted != opened.tokenizer.to_bytes():
        return None
    return RunData(opened.tokenizer, opened.train, opened.valid)


def _prepared_now(config: TrainConfig, saved_tokenizer: bytes | None, say: Say) -> RunData | None:
    """Token shards of a long text, made now, or by a run before; None for a short one."""
    files = _files(config)
    size = sum(path.stat().st_size for path in files)
    if size <= LARGE:
        return None
    from phi_train.prepare import MAX_VOCAB  # noqa: PLC0415 (only a long text needs it)

    saved = None if saved_tokenizer is None else Tokenizer.from_bytes(saved_tokenizer)
    wanted = Tokenizer.load(config.tokenizer) if config.tokenizer else None
    if saved is not None and config.init_from:
        wanted = saved
    sizes = [tokenizer.n_vocab for tokenizer in (saved, wanted) if tokenizer is not None]
    if max(sizes, default=config.vocab_size) > MAX_VOCAB:  # shards hold ids of 16 bits
        return None
    say(
        f"data: {size / 1e6:,.0f} MB of text are read as token shards, made once in "
        f"{data_folder() / 'tokens'} (phi-train data prepare makes them faster, where you like)"
    )
    data = _shards(config, files, wanted, say)
    if saved is not None and data.tokenizer.to_bytes() != saved_tokenizer:
        data = _shards(config, files, saved, say)
    return data


def _files(config: TrainConfig) -> list[Path]:
    """The files that hold the text of both sides; none where they are not all files."""
    names = [(config.data, False)]
    if config.valid or config.data in DATASETS:
        names.append((config.valid or config.data, True))
    if any(name == BUILTIN or is_prepared(name) for name, _ in names):
        return []
    return [
        path
        for name, held_out in names
        for path in files_of(dataset_file(name, held_out=held_out) if name in DATASETS else name)
    ]


def _shards(
    config: TrainConfig, files: list[Path], tokenizer: Tokenizer | None, say: Say
) -> RunData:
    """A folder for these files and this tokenizer; what changed in them is made anew in it."""
    from phi_train.prepare import prepare  # noqa: PLC0415 (only a long text needs it)

    learnt = config.vocab_size if tokenizer is None else tokenizer.to_bytes().decode()
    identity = json.dumps([[str(path.absolute()) for path in files], config.valid, learnt])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = data_folder() / "tokens" / f"{Path(config.data).stem}-{digest}"
    prepare(
        config.data,
        folder,
        tokenizer=tokenizer,
        vocab_size=config.vocab_size,
        valid=config.valid,
        progress=_by_quarters(say),
    )
    opened = open_prepared(folder)
    return RunData(opened.tokenizer, opened.train, opened.valid)


def _by_quarters(say: Say) -> Callable[[str, int, int], None]:
    """A Progress that says a line at each quarter of each phase."""
    told: dict[str, int] = {}

    def progress(phase: str, done: int, total: int) -> None:
        quarter = 4 * done // total if total else 0
        if quarter > told.get(phase, 0):
            told[phase] = quarter
            say(f"data: {phase}, {25 * quarter} %")

    return progress


def _fresh(config: TrainConfig, saved_tokenizer: bytes | None, say: Say) -> RunData:
    corpus = open_corpus(config.data, config.valid, n_stories=config.stories)
    if saved_tokenizer is not None:
        tokenizer = Tokenizer.from_bytes(saved_tokenizer)
    elif config.tokenizer:
        tokenizer = Tokenizer.load(config.tokenizer)
    else:
        say(f"tokenizer: learning {config.vocab_size} tokens")
        tokenizer = Tokenizer.train(
            corpus.train, vocab_size=config.vocab_size, special_tokens=[END_OF_TEXT]
        )
    train = encode_documents(corpus.train, tokenizer, what=config.data)
    valid = encode_documents(
        corpus.valid,
        tokenizer,
        what=config.valid or f"the held-out part of {config.data}",
        source_nats=corpus.valid_nats,
    )
    return RunData(tokenizer, train, valid)
