"""phi-train data: what there is to train on, how much is in it, and making it ready."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Annotated

import typer

from phi_tokenizer import Tokenizer
from phi_train.byte_progress import ByteProgress
from phi_train.corpus import STORIES
from phi_train.datasets import data_folder, dataset_named
from phi_train.documents import END_OF_TEXT
from phi_train.errors import ConfigError

__all__ = ["data_app"]

data_app = typer.Typer(help="What there is to train on, and making it ready.", no_args_is_help=True)

MOST_WORKERS = 4  # each takes some 80 MB of memory

SOURCES = """\
builtin          stories of phi's own grammar, endless; their exact entropy is known, so a
                 model's distance from the best possible one can be told
tinystories      stories by GPT-4 for three-year-olds, 2.2 GB; first: phi-train data fetch
FILE.txt         text; documents separated by <|endoftext|>, where it occurs
FILE.jsonl       one JSON object a line, its key "text" a document
FILE.parquet     a column "text"; needs: pip install 'phi-train[parquet]'
FOLDER           every such file in it, or what phi-train data prepare made"""


@data_app.command(name="list")
def list_() -> None:
    """What --data and --valid take."""
    print(SOURCES)


@data_app.command(name="fetch")
def fetch_(
    name: Annotated[str, typer.Argument(help="Which dataset: tinystories.")],
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="Where to keep it; without it $PHI_DATA, or the cache folder."),
    ] = None,
) -> None:
    """Download a dataset once, checked; what broke off goes on where it was.

    Its files are compared with the checksum that the server publishes, and the
    one of the first download holds from then on.

    Example: phi-train data fetch tinystories
    """
    from phi_train.fetch import fetch  # noqa: PLC0415 (http and ssl take 50 ms to import)

    with ByteProgress() as progress:
        files = fetch(dataset_named(name), folder=folder, progress=progress)
    for file in files:
        how = "is there and sound" if file.already else "downloaded"
        told = "the server's own checksum" if file.published else "the server publishes no checksum"
        print(f"{file.path}: {how} (SHA-256 {file.sha256[:12]}..., {told})")
    if folder is not None and folder.resolve() != data_folder().resolve():
        print(f"for it to be found there: export PHI_DATA={folder.resolve()}")
    print(f"make it ready with: phi-train data prepare {name} --out {name}-tokens")


@data_app.command(name="prepare")
def prepare_(
    source: Annotated[str, typer.Argument(help="What phi-train data list names.")],
    out: Annotated[Path, typer.Option(help="The folder to make; then give it to run --data.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json; without it one is learnt.")
    ] = None,
    vocab_size: Annotated[
        int, typer.Option(help="Tokens of the one to be learnt, 257 to 65536.")
    ] = 1024,
    valid: Annotated[
        str, typer.Option(help="Text to measure on; without it a twentieth of SOURCE.")
    ] = "",
    stories: Annotated[
        int, typer.Option(help="How many to train on, of the builtin ones.")
    ] = STORIES,
    workers: Annotated[
        str, typer.Option(help="Processes that encode: a number, or auto (up to 4).")
    ] = "auto",
) -> None:
    """Turn any source into token shards on the disk: long texts start at once, in little memory.

    Documents are split by a hash of their text, so one never changes sides. A
    second call finds everything done; one that was interrupted goes on.

    Example: phi-train data prepare tinystories --out tokens --vocab-size 4096
    """
    from phi_train.prepare import prepare  # noqa: PLC0415 (only this command needs it)

    if workers != "auto" and not workers.isdecimal():
        raise ConfigError(f"--workers is {workers!r}; it must be auto, or 1 or more")
    if stories < 1:
        raise ConfigError(f"--stories is {stories}; it must be 1 or more")
    with ByteProgress() as progress:
        report = prepare(
            source,
            out,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            valid=valid,
            stories=stories,
            workers=min(MOST_WORKERS, os.cpu_count() or 1) if workers == "auto" else int(workers),
            progress=progress,
        )
    if report.already:
        print(f"{out} holds just this already: nothing to do")
    for side, name in (("train", "to train on"), ("valid", "held out")):
        facts = report.manifest["sides"][side]
        print(
            f"{facts['documents']:>12,} documents, {facts['tokens']:>14,} tokens {name} "
            f"({facts['text_bytes'] / facts['tokens']:.2f} bytes a token)"
        )
    print(f"train on it with: phi-train run --data {out}")


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
