"""The program `phi-tokenizer`."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from phi_tokenizer import EncodingError, TokenIdError, Tokenizer, TokenizerError, console
from phi_tokenizer import __version__ as version
from phi_tokenizer.files import atomic_write
from phi_tokenizer.inspection import describe_text, describe_vocabulary

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Byte-level BPE tokenizers, trained and run in pure Python and numpy.\n\n"
    "Start with: phi-tokenizer train stories.txt --vocab-size 1024 --output tokenizer.json",
)


class To(StrEnum):
    """The formats that can be written."""

    hf = "hf"
    gpt2 = "gpt2"
    tiktoken = "tiktoken"
    llama2c = "llama2c"


TokenizerPath = Annotated[
    Path,
    typer.Argument(
        metavar="TOKENIZER",
        help="A tokenizer.json, a vocab.json beside its merges.txt, a .tiktoken file, or a "
        "folder with one of these.",
    ),
]
Special = Annotated[
    list[str] | None,
    typer.Option("--special", help="A special token, such as '<|endoftext|>'; may be repeated."),
]
Pattern = Annotated[
    str | None,
    typer.Option(help="The split pattern, where the file does not hold it: gpt2 or cl100k."),
]


@app.callback(invoke_without_command=True)
def program(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if show_version:
        print(f"phi-tokenizer {version}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise typer.Exit(2)


@app.command()
def train(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="UTF-8 text files, .jsonl files (key text), or folders of them. Documents in "
            "them end at <|endoftext|>.",
        ),
    ],
    vocab_size: Annotated[
        int, typer.Option(help="256 bytes + merges + special tokens; at most 65536.")
    ] = 4096,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The tokenizer.json to write.")
    ] = Path("tokenizer.json"),
    special: Special = None,
    pattern: Annotated[
        str,
        typer.Option(
            help="How texts are split: gpt2, cl100k, none, or a regular expression "
            "(all but gpt2 and none need the extra: pip install 'phi-tokenizer[patterns]')."
        ),
    ] = "gpt2",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Learn a vocabulary from text and save it as a tokenizer.json.

    Example: phi-tokenizer train stories.txt --vocab-size 1024 --special '<|endoftext|>'
    """
    if output.is_dir():
        raise IsADirectoryError(21, "is a folder", str(output))
    with _progress(not quiet) as progress:
        tokenizer = Tokenizer.train_from_files(
            inputs,
            vocab_size=vocab_size,
            special_tokens=special or (),
            pattern=pattern,
            progress=progress,
        )
    tokenizer.save(output)
    print(
        f"{output}: {tokenizer.n_vocab} tokens, {len(tokenizer.vocabulary.merges)} merges; "
        f"{_bytes_per_token(tokenizer, inputs)}"
    )


@app.command()
def encode(
    tokenizer: TokenizerPath,
    file: Annotated[
        Path | None, typer.Argument(help="A UTF-8 text file; standard input if there is none.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="The text itself, instead of a file.")] = None,
    ordinary: Annotated[
        bool, typer.Option("--ordinary", help="Treat names of special tokens as ordinary text.")
    ] = False,
    special: Special = None,
    pattern: Pattern = None,
) -> None:
    """Print the ids of a text, separated by spaces.

    Names of special tokens in the text become their ids.

    Example: phi-tokenizer encode tokenizer.json --text "Once upon a time"
    """
    loaded = _load(tokenizer, special, pattern)
    if text is not None and file is not None:
        _refuse("give either FILE or --text, not both")
    content = text if text is not None else _read_text(file)
    if ordinary:
        ids = loaded.encode_to_numpy(content, disallowed_special=())
    else:
        ids = loaded.encode_to_numpy(content, allowed_special="all")
    block = 1 << 16
    for begin in range(0, ids.size, block):
        line = " ".join(map(str, ids[begin : begin + block].tolist()))
        sys.stdout.write(f"{' ' if begin else ''}{line}")
    sys.stdout.write("\n")


@app.command()
def decode(
    tokenizer: TokenizerPath,
    file: Annotated[
        Path | None,
        typer.Argument(help="A file of ids separated by white space; standard input if none."),
    ] = None,
    ids: Annotated[str | None, typer.Option(help='The ids themselves: --ids "1 2".')] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the bytes to this file.")
    ] = None,
    special: Special = None,
    pattern: Pattern = None,
) -> None:
    """Turn ids back into text, byte for byte.

    Example: phi-tokenizer encode tokenizer.json --text hello | phi-tokenizer decode tokenizer.json
    """
    loaded = _load(tokenizer, special, pattern)
    if ids is not None and file is not None:
        _refuse("give either FILE or --ids, not both")
    content = ids if ids is not None else _read_text(file)
    numbers: list[int] = []
    for word in content.replace(",", " ").split():
        if not word.isdecimal() or len(word) > 9:
            raise TokenIdError(f"{word[:40]!r} is not a token id; give whole numbers")
        numbers.append(int(word))
    data = loaded.decode_bytes(numbers)
    if output is not None:
        with atomic_write(output) as target:
            target.write(data)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    if sys.stdout.isatty() and not data.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")


@app.command()
def inspect(
    tokenizer: TokenizerPath,
    text: Annotated[str | None, typer.Option(help="A text to show token by token.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    special: Special = None,
    pattern: Pattern = None,
) -> None:
    """Show a vocabulary's shape, and how it cuts a text.

    Example: phi-tokenizer inspect tokenizer.json --text "Lily's cat sat."
    """
    loaded = _load(tokenizer, special, pattern)
    facts: dict[str, Any] = describe_vocabulary(loaded)
    if text is not None:
        facts["text"] = describe_text(loaded, text)
    if as_json:
        print(json.dumps(facts, ensure_ascii=True))
    else:
        _show(facts)


@app.command()
def convert(
    source: TokenizerPath,
    target: Annotated[
        Path, typer.Argument(help="The file to write; for gpt2 a folder, for its two files.")
    ],
    to: Annotated[
        To,
        typer.Option(
            "--to",
            help="hf: tokenizer.json. gpt2: vocab.json and merges.txt. tiktoken: a .tiktoken "
            "file, without special tokens. llama2c: tokenizer.bin.",
        ),
    ],
    special: Special = None,
    pattern: Pattern = None,
) -> None:
    """Write a tokenizer in another format.

    Example: phi-tokenizer convert tokenizer.json tokenizer.bin --to llama2c
    """
    loaded = _load(source, special, pattern)
    for path in loaded.save(target, to=to.value):
        print(f"{path}: {loaded.n_vocab} tokens")
    if to is To.tiktoken and loaded.special_tokens:
        names = ", ".join(loaded.special_tokens)
        print(f"not in this format: the special tokens {names}", file=sys.stderr)


def _load(path: Path, special: list[str] | None, pattern: str | None) -> Tokenizer:
    return Tokenizer.load(path, special_tokens=special or None, pattern=pattern)


def _refuse(message: str) -> NoReturn:
    raise typer.BadParameter(message)


def _read_text(file: Path | None) -> str:
    name = "standard input" if file is None else str(file)
    data = sys.stdin.buffer.read() if file is None else file.read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise EncodingError(
            f"{name} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}; "
            "convert it, for example with iconv"
        ) from None


def _bytes_per_token(tokenizer: Tokenizer, inputs: list[Path]) -> str:
    """On the beginning of the training text, as a figure to compare vocabularies by."""
    from phi_tokenizer.corpus import corpus_files, read_parts  # noqa: PLC0415
    from phi_tokenizer.special import END_OF_TEXT  # noqa: PLC0415

    sizes = tokens = 0
    separators = {END_OF_TEXT, *tokenizer.special_tokens}
    for path in corpus_files(inputs):
        for part in read_parts(path, separators, may_cut=tokenizer.pattern == "gpt2"):
            sizes += len(part.encode())
            tokens += tokenizer.encode_to_numpy(part, disallowed_special=()).size
            if sizes > 1 << 24:
                break
        if sizes > 1 << 24:
            break
    return f"{sizes / tokens:.3f} bytes a token on the first {sizes:,} bytes of the text"


@contextmanager
def _progress(show: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    if not show or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def report(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase, total=total or None)
            bar.update(tasks[phase], completed=done)

        yield report


def _show(facts: dict[str, Any]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    out = Console(file=sys.stdout, highlight=False)
    table = Table(show_header=False, box=None)
    for key, name in (
        ("n_vocab", "ids"),
        ("merges", "merges"),
        ("pattern", "split pattern"),
        ("dtype", "ids in arrays"),
        ("mean_token_bytes", "bytes of a token, mean"),
        ("starting_with_a_blank", "tokens that start with a blank"),
        ("no_whole_characters", "tokens that are no whole characters"),
    ):
        table.add_row(name, Text(str(facts[key])))
    specials = ", ".join(f"{name} = {index}" for name, index in facts["special_tokens"].items())
    table.add_row("special tokens", Text(specials or "none"))
    table.add_row("longest", Text(" ".join(map(repr, facts["longest"]))))
    out.print(table)
    out.print()
    most = max(facts["tokens_by_bytes"].values())
    for length, count in facts["tokens_by_bytes"].items():
        out.print(Text(f"{length:>4} bytes {count:>6} {'▇' * max(1, round(40 * count / most))}"))
    if "text" in facts:
        shown = facts["text"]
        out.print()
        colours = ("black on cyan", "black on yellow", "black on green", "black on magenta")
        line = Text()
        for index, piece in enumerate(shown["pieces"]):
            visible = piece if out.is_terminal else f"[{piece}]"
            line.append(visible, style=colours[index % len(colours)])
        out.print(line, soft_wrap=True)
        out.print(
            Text(
                f"{shown['tokens']} tokens, {shown['bytes']} bytes, "
                f"{shown['bytes_per_token']} bytes a token"
            )
        )
        out.print(Text(" ".join(map(str, shown["ids"]))), soft_wrap=True)


def main() -> None:
    """What the command `phi-tokenizer` runs."""
    console.run(app, "phi-tokenizer", errors=(TokenizerError,))
