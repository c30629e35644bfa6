"""phi-train data: what there is to train on, and how much is in it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from phi_tokenizer import Tokenizer
from phi_train.documents import END_OF_TEXT
from phi_train.errors import ConfigError

__all__ = ["data_app"]

data_app = typer.Typer(
    help="What there is to train on, and how much is in it.", no_args_is_help=True
)

SOURCES = """\
builtin          stories of phi's own grammar, endless; their exact entropy is known, so a
                 model's distance from the best possible one can be told
FILE.txt         text; documents separated by <|endoftext|>, where it occurs
FILE.jsonl       one JSON object a line, its key "text" a document
FILE.parquet     a column "text"; needs: pip install 'phi-train[parquet]'
FOLDER           every such file in it"""


@data_app.command(name="list")
def list_() -> None:
    """What --data and --valid take."""
    print(SOURCES)


@data_app.command(name="entropy")
def entropy_(
    stories: Annotated[int, typer.Option(help="How many stories to measure it on.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the stories.")] = 0,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json, for nats a token as well.")
    ] = None,
    events: Annotated[
        int | None, typer.Option(help="Free events in every story: the knob for difficulty.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """The entropy of the builtin stories: what no model can ever go below.

    The mean of -log p over many stories, each p exact, with its standard error.
    The end of a story counts: its bits are part of the sum, and it is a token.
    """
    from phi_train.stories import StoryGrammar, entropy  # noqa: PLC0415 (builds the grammar)

    if stories < 2 or (events is not None and events < 0):
        raise ConfigError("--stories must be 2 or more, --events 0 or more")
    grammar = StoryGrammar() if events is None else StoryGrammar(events=events)
    loaded = Tokenizer.load(tokenizer) if tokenizer else None
    if loaded is not None and END_OF_TEXT not in loaded.special_tokens:
        raise ConfigError(f"{tokenizer} has no {END_OF_TEXT} token, which ends each story")
    found = entropy(
        grammar,
        n_stories=stories,
        seed=seed,
        count_tokens=None if loaded is None else lambda text: len(loaded.encode_ordinary(text)) + 1,
    )
    if as_json:
        figures = {
            "stories": found.n_stories,
            "bits_per_byte": found.bits_per_byte.value,
            "bits_per_byte_error": found.bits_per_byte.error,
            "nats_per_story": found.nats_per_story.value,
            "nats_per_story_error": found.nats_per_story.error,
            "bytes_per_story": found.bytes_per_story.value,
        }
        if found.nats_per_token:
            figures["nats_per_token"] = found.nats_per_token.value
            figures["nats_per_token_error"] = found.nats_per_token.error
        print(json.dumps(figures))
        return
    print(f"bits a byte     {found.bits_per_byte}")
    if found.nats_per_token:
        print(f"nats a token    {found.nats_per_token}")
    bits = found.nats_per_story.value / math.log(2)
    print(f"nats a story    {found.nats_per_story}   ({bits:.1f} bits)")
    print(f"bytes a story   {found.bytes_per_story}")
    print(f"over {found.n_stories:,} stories of seed {seed}; each +- is a standard error")
