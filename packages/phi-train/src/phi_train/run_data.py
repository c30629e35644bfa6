"""What a run reads: its tokenizer, the tokens to train on, those to measure on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from phi_tokenizer import Tokenizer
from phi_train.config import TrainConfig
from phi_train.corpus import open_corpus
from phi_train.documents import END_OF_TEXT
from phi_train.shards import is_prepared, open_prepared
from phi_train.tokens import TokenStream, encode_documents

__all__ = ["RunData", "open_run_data"]


@dataclass(frozen=True)
class RunData:
    """Both sides of the text, as one tokenizer sees them."""

    tokenizer: Tokenizer
    train: TokenStream
    valid: TokenStream


def open_run_data(
    config: TrainConfig, saved_tokenizer: bytes | None, say: Callable[[str], None]
) -> RunData:
    """Reads the data of `config`.

    saved_tokenizer: of the checkpoint that the run goes on from or begins with; otherwise the
    config names one, or one is learnt. say: called with a line for each thing done.
    """
    data = _prepared(config, saved_tokenizer) or _fresh(config, saved_tokenizer, say)
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
    opened = open_prepared(config.data)
    wanted = saved_tokenizer
    if wanted is None and config.tokenizer:
        wanted = Tokenizer.load(config.tokenizer).to_bytes()
    if wanted is not None and wanted != opened.tokenizer.to_bytes():
        return None
    return RunData(opened.tokenizer, opened.train, opened.valid)


def _fresh(
    config: TrainConfig, saved_tokenizer: bytes | None, say: Callable[[str], None]
) -> RunData:
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
