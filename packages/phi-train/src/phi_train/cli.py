"""The phi-train command: arguments in, one call to the library, words and numbers out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import phi_train
from phi_infer import PhiInferError
from phi_model import (
    GradientCheck,
    ModelConfig,
    PhiModelError,
    build_model,
    check_gradients,
    load_checkpoint,
)
from phi_model.gradcheck import TOLERANCE
from phi_optim import PhiOptimError
from phi_tokenizer import Tokenizer, TokenizerError, console
from phi_train.config import TrainConfig
from phi_train.documents import documents
from phi_train.errors import ConfigError, PhiTrainError
from phi_train.evaluate import evaluate
from phi_train.loop import TrainResult, train
from phi_train.ngram import NAMES, baselines
from phi_train.progress import progress_for
from phi_train.run_folder import RunFolder
from phi_train.tokens import encode_documents, split_documents

__all__ = ["app", "main"]

app = typer.Typer(
    help="Train small language models from scratch, with nothing but Python and numpy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

ERRORS = (PhiTrainError, PhiModelError, PhiOptimError, PhiInferError, TokenizerError)
SOURCE_HELP = "A .txt, .jsonl or .parquet file, or a folder of them."
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]


def _version(show: bool) -> None:
    if show:
        print(f"phi-train {phi_train.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train small language models from scratch, with nothing but Python and numpy."""


@app.command()
def run(
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of settings; options go over it.")
    ] = None,
    data: Annotated[str | None, typer.Option(help=SOURCE_HELP)] = None,
    valid: Annotated[
        str | None,
        typer.Option(help="Held-out text; without it a part of --data, chosen by hash."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="The model: gpt-1k, gpt-10k, gpt-100k, gpt-1m ... gpt-30m.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Updates to make. Default 2000.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Or: tokens to train on.")] = None,
    flops: Annotated[float | None, typer.Option(help="Or: operations to spend, e.g. 1e13.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="The peak; by default 2e-3 or less, by width.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="warmup-stable-decay, linear, cosine or constant.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows of a batch. Default 4.")] = None,
    seq_len: Annotated[int | None, typer.Option(help="Tokens of a row. Default 128.")] = None,
    grad_accum: Annotated[int | None, typer.Option(help="Batches an update. Default 1.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="A tokenizer.json to use.")] = None,
    vocab_size: Annotated[
        int | None, typer.Option(help="Or: size of the one to be trained. Default 1024.")
    ] = None,
    workers: Annotated[
        str | None, typer.Option(help="Processes that share a batch, or 'auto' (the default).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights and batches. Default 0.")] = None,
    out: Annotated[str | None, typer.Option(help="The run's folder. Default runs/PRESET.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
) -> None:
    """Train a model on a text.

    Example: phi-train run --data stories.txt --preset gpt-1m --steps 2000 --out runs/first
    """
    options = {name: value for name, value in locals().items() if value is not None}
    given = {k: v for k, v in options.items() if k not in ("config", "resume")}
    settings = TrainConfig.from_dict(_file_settings(config, out, resume=resume) | given)
    result = train(settings, resume=resume, progress=progress_for())
    if not result.finished:
        print(
            f"stopped after step {result.step}; everything is saved. Go on with:\n"
            f"  phi-train run --resume --out {result.folder.path}"
        )
        raise typer.Exit(130)
    _print_result(result)


def _file_settings(config: Path | None, out: str | None, *, resume: bool) -> dict[str, Any]:
    """Settings from --config; a resumed run's own config.toml where there is none."""
    if config is not None:
        return TrainConfig.read(config)
    own = RunFolder(out).config if out else None
    return TrainConfig.read(own) if resume and own and own.exists() else {}


def _print_result(result: TrainResult) -> None:
    evaluation = result.evaluation
    if evaluation is None:
        return
    rows = {**result.baselines, "this model": evaluation.loss}
    print(f"\nheld-out loss, nats a token, on {evaluation.tokens:,} tokens:")
    for name, loss in sorted(rows.items(), key=lambda row: -row[1]):
        print(f"  {name:<12}{loss:7.4f}")
    print(f"{evaluation.bits_per_byte:.4f} bits a byte, perplexity {evaluation.perplexity:.2f}")
    print(
        f"saved in {result.folder.path}. Next:\n"
        f"  phi-infer generate {result.folder.best} --prompt 'Once upon a time'"
    )


@app.command(name="eval")
def eval_(
    checkpoint: Annotated[Path, typer.Argument(help="A .phi file.")],
    data: Annotated[str, typer.Option(help=SOURCE_HELP)],
    seq_len: Annotated[
        int | None, typer.Option(help="Tokens of a window; the model's own by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on a text: nats a token, perplexity, exact bits per byte.

    Every token counts once, in windows without overlap; a document ends with one end token.
    """
    if seq_len is not None and seq_len < 1:
        raise ConfigError(f"--seq-len is {seq_len}; it must be 1 or more")
    opened = load_checkpoint(checkpoint)
    if opened.tokenizer is None:
        raise ConfigError(f"{checkpoint} holds no tokenizer, so it cannot read text")
    stream = encode_documents(documents(data), Tokenizer.from_bytes(opened.tokenizer), what=data)
    result = evaluate(opened.model, stream, seq_len=seq_len)
    if as_json:
        print(json.dumps({"checkpoint": str(checkpoint), "step": opened.step, **result.as_dict()}))
        return
    print(f"loss           {result.loss:.4f} nats a token")
    print(f"perplexity     {result.perplexity:.3f}")
    print(f"bits per byte  {result.bits_per_byte:.4f}")
    print(
        f"on {result.tokens:,} tokens of {result.documents:,} documents "
        f"({result.text_bytes:,} bytes)"
    )


@app.command(name="baselines")
def baselines_(
    data: Annotated[str, typer.Option(help=f"To count on. {SOURCE_HELP}")],
    tokenizer: Annotated[Path, typer.Option(help="A tokenizer.json with an end-of-text token.")],
    valid: Annotated[
        str | None, typer.Option(help="To measure on; without it a part of --data, by hash.")
    ] = None,
    order: Annotated[int, typer.Option(help="The longest n-gram, 1 to 5.")] = 3,
    as_json: AsJson = False,
) -> None:
    """What counting words achieves: uniform, unigram, bigram, trigram, by Kneser-Ney, held out."""
    if not 1 <= order < len(NAMES):
        raise ConfigError(f"--order is {order}; it must be between 1 and {len(NAMES) - 1}")
    loaded = Tokenizer.load(tokenizer)
    counted_documents, measured_documents = (
        (list(documents(data)), list(documents(valid)))
        if valid
        else split_documents(documents(data))
    )
    counted = encode_documents(counted_documents, loaded, what=data)
    measured = encode_documents(
        measured_documents, loaded, what=valid or f"the held-out part of {data}"
    )
    losses = baselines(counted, measured, vocab_size=loaded.n_vocab, order=order)
    bits = {name: measured.bits_per_byte(loss * measured.ids.size) for name, loss in losses.items()}
    if as_json:
        print(json.dumps({**losses, "bits_per_byte": bits, "tokens": int(measured.ids.size)}))
        return
    print(f"{'':<10}nats a token  bits per byte   ({measured.ids.size:,} tokens)")
    for name, loss in losses.items():
        print(f"{name:<10}{loss:12.4f}  {bits[name]:13.4f}")


@app.command(name="check-gradients")
def check_gradients_(
    checkpoint: Annotated[Path | None, typer.Argument(help="A .phi file.")] = None,
    preset: Annotated[str, typer.Option(help="Or a new model of this preset.")] = "gpt-1k",
    seed: Annotated[int, typer.Option(help="Of the batch and the directions.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare every parameter's gradient with finite differences, in float64.

    Exit code 1 when one is off by more than 1e-7.
    """
    if checkpoint is not None:
        model = load_checkpoint(checkpoint).model
    else:
        model = build_model(ModelConfig.preset(preset), seed=seed)
    rows = check_gradients(model, seed=seed)
    sound = all(row.ok for row in rows)
    if as_json:
        table = [
            {"name": r.name, "shape": r.shape, "norm": r.gradient_norm, "error": r.error}
            for r in rows
        ]
        print(json.dumps({"ok": sound, "tolerance": TOLERANCE, "parameters": table}))
    else:
        _print_gradients(rows)
        verdict = "all" if sound else "NOT ALL"
        print(f"{verdict} within {TOLERANCE:g} of finite differences, relative")
    if not sound:
        raise typer.Exit(1)


def _print_gradients(rows: list[GradientCheck]) -> None:
    width = max(len(row.name) for row in rows)
    print(f"{'parameter':<{width}}  {'shape':>10}  {'norm':>8}  direction  element")
    for row in rows:
        shape = "x".join(map(str, row.shape))
        print(
            f"{row.name:<{width}}  {shape:>10}  {row.gradient_norm:8.2e}  "
            f"{row.direction_error:9.1e}  {row.element_error:7.1e}  {'ok' if row.ok else 'WRONG'}"
        )


def main() -> None:
    """The entry point: a user's mistake is one line and an exit code that is not 0."""
    console.run(app, "phi-train", errors=ERRORS)
