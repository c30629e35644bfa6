"""The command that measures: phi-infer bench."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["bench"]


def bench(
    checkpoint: Annotated[
        Path, typer.Argument(help="A model file or folder, as phi-infer generate takes it.")
    ],
    tokens: Annotated[int, typer.Option(help="Tokens of each text that is made.")] = 256,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of the prompt that is read.")] = 128,
    batch: Annotated[int, typer.Option(help="Texts made side by side.")] = 8,
    rounds: Annotated[int, typer.Option(help="How often; medians are shown.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Measure how fast a model makes text on this machine, and the memory it takes.

    Random tokens, greedy: prefill reads a prompt at once, decoding makes one
    text token by token, the batch several side by side. numpy uses as many
    threads as it likes; OPENBLAS_NUM_THREADS=1 holds it to one, which is often
    faster for small models.

    Example: phi-infer bench runs/first/best.phi --json
    """
    from phi_infer.bench import bench as measure  # noqa: PLC0415 (other commands start sooner)

    speed = measure(
        checkpoint, tokens=tokens, prompt_tokens=prompt_tokens, batch=batch, rounds=rounds
    )
    if as_json:
        print(json.dumps(asdict(speed)))
        return
    memory = "unknown here" if speed.private_mb is None else f"{speed.private_mb:,.1f} MB"
    for name, value in {
        "load": f"{speed.load_ms:,.1f} ms",
        "first token": f"{speed.first_token_ms:,.1f} ms, after a prompt of {speed.prompt_tokens}",
        "prefill": f"{speed.prefill_tokens_per_second:,.0f} tokens/s",
        "decoding": f"{speed.decode_tokens_per_second:,.0f} tokens/s",
        f"batch of {speed.batch}": f"{speed.batch_tokens_per_second:,.0f} tokens/s in all",
        "private memory": memory,
    }.items():
        print(f"{name:<15}  {value}")
