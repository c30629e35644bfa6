"""The command `phi-tokenizer`."""

from pathlib import Path
from typing import Annotated

import typer

from phi_tokenizer import Tokenizer, TokenizerError, __version__, console

app = typer.Typer(no_args_is_help=True)


@app.callback(invoke_without_command=True)
def program(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Byte-level BPE tokenizers: train, encode, decode."""
    if version:
        print(f"phi-tokenizer {__version__}")
        raise typer.Exit


@app.command()
def train(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...")],
    vocab_size: Annotated[int, typer.Option(help="256 bytes + merges + special tokens.")] = 4096,
    output: Annotated[Path, typer.Option(help="Where to save it.")] = Path("tokenizer.json"),
    special: Annotated[list[str] | None, typer.Option(help="A special token.")] = None,
) -> None:
    """Train a tokenizer on text files."""
    tokenizer = Tokenizer.train_from_files(
        inputs, vocab_size=vocab_size, special_tokens=special or ()
    )
    tokenizer.save(output)
    print(f"{output}: {tokenizer.n_vocab} tokens")


def main() -> None:
    """Entry point."""
    console.run(app, "phi-tokenizer", errors=(TokenizerError,))
