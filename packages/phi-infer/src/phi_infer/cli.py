"""The phi-infer command."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import phi_infer
from phi_infer.errors import PhiInferError, SamplingError
from phi_model import PhiModelError, load_checkpoint
from phi_tokenizer import TokenizerError, console

__all__ = ["app", "main"]

app = typer.Typer(
    help="Text from small language models, streamed as it is made.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

CheckpointPath = Annotated[Path, typer.Argument(help="A .phi file, e.g. runs/first/best.phi.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]


def _version(show: bool) -> None:
    if show:
        print(f"phi-infer {phi_infer.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Text from small language models, streamed as it is made."""


@app.command()
def generate(
    checkpoint: CheckpointPath,
    prompt: Annotated[
        str, typer.Option(help="The text to continue; without it a new text begins.")
    ] = "",
    max_tokens: Annotated[
        int, typer.Option(help="Tokens to make at most; a token is a few letters.")
    ] = 200,
    temperature: Annotated[
        float, typer.Option(help="0: the most probable token; 1: as the model thinks.")
    ] = 0.8,
    top_k: Annotated[int, typer.Option(help="Only the k most probable tokens; 0: all.")] = 0,
    top_p: Annotated[
        float,
        typer.Option(help="Only the most probable tokens that together reach this; 1: all."),
    ] = 1.0,
    min_p: Annotated[
        float,
        typer.Option(help="Only tokens at least this fraction as probable as the best; 0: all."),
    ] = 0.0,
    repeat_penalty: Annotated[
        float, typer.Option(help="Above 1: tokens seen before become less likely; try 1.2.")
    ] = 1.0,
    stop: Annotated[
        list[str] | None, typer.Option(help="End where this text would appear; repeatable.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed gives the same text; random without.")
    ] = None,
    num_samples: Annotated[int, typer.Option(help="How many texts, seeds counting up.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Continue a prompt, showing the text as it is made.

    It ends where the model ends it, at --stop, or after --max-tokens.

    Each token is drawn at random: --temperature sharpens the model's
    probabilities (below 1) or flattens them (above 1), then --top-k, --top-p
    and --min-p take unlikely tokens out.

    Example: phi-infer generate runs/first/best.phi --prompt "Once upon a time"

    The same text every time, the likeliest token at each place: --temperature 0

    Ten texts for a program to read: --num-samples 10 --seed 1 --json
    """
    if num_samples < 1:
        raise SamplingError(f"--num-samples is {num_samples}; it must be 1 or more")
    generator = phi_infer.load(checkpoint)
    first_seed = secrets.randbelow(2**32) if seed is None else seed
    samples = []
    for number in range(num_samples):
        pieces = generator.stream(
            prompt,
            max_tokens=max_tokens,
            stop=stop or [],
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repeat_penalty=repeat_penalty,
            seed=first_seed + number,
        )
        if as_json:
            samples.append({"seed": first_seed + number, "text": "".join(pieces)})
            continue
        if number:
            print("\n---")
        _show(prompt)
        for piece in pieces:
            _show(piece)
        print(flush=True)
    if as_json:
        print(json.dumps({"prompt": prompt, "samples": samples}, ensure_ascii=False))


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@app.command()
def inspect(checkpoint: CheckpointPath, as_json: AsJson = False) -> None:
    """Show what a checkpoint holds: the model's shape, its size, its tokenizer."""
    opened = load_checkpoint(checkpoint)
    config = opened.config
    facts: dict[str, Any] = {
        "step": opened.step,
        "parameters": config.n_parameters,
        "non_embedding_parameters": config.n_non_embedding,
        **config.to_dict(),
        "tokenizer_bytes": len(opened.tokenizer or b""),
        "file_bytes": checkpoint.stat().st_size,
    }
    if as_json:
        print(json.dumps(facts))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value:,}" if type(value) is int else f"{name:<{width}}  {value}")


def main() -> None:
    """The entry point: a user's mistake is one line and an exit code that is not 0."""
    console.run(app, "phi-infer", errors=(PhiInferError, PhiModelError, TokenizerError))
