"""The phi-train command: arguments in, one call to the library, words and numbers out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

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
from phi_train.cli_data import data_app
from phi_train.cli_demo import demo
from phi_train.cli_experiment import experiment_app
from phi_train.cli_improve import improve_app
from phi_train.cli_run import SOURCE_HELP, run
from phi_train.cli_see import add_commands_to_see
from phi_train.corpus import documents_to_measure, open_corpus
from phi_train.errors import ConfigError, PhiTrainError, RunError
from phi_train.evaluate import evaluate
from phi_train.ngram import NAMES, baselines
from phi_train.tokens import encode_documents

__all__ = ["app", "main"]

app = typer.Typer(
    help="Train small language models from scratch, with nothing but Python and numpy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

ERRORS = (PhiTrainError, PhiModelError, PhiOptimError, PhiInferError, TokenizerError)
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


@app.command(name="eval")
def eval_(
    checkpoint: Annotated[Path, typer.Argument(help="A .phi file.")],
    data: Annotated[str, typer.Option(help=f"What to measure on: {SOURCE_HELP}")],
    seq_len: Annotated[
        int | None, typer.Option(help="Tokens of a window; the model's own by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on a text: nats a token, perplexity, exact bits per byte.

    Every token counts once, in windows without overlap; a document ends with
    one end token. Bits per byte do not depend on the tokenizer, so they compare
    models that do not share one; nats a token do not.

    Example: phi-train eval runs/gpt-1m/best.phi --data valid.txt
    """
    if seq_len is not None and seq_len < 1:
        raise ConfigError(f"--seq-len is {seq_len}; it must be 1 or more")
    opened = load_checkpoint(checkpoint)
    if opened.tokenizer is None:
        raise ConfigError(f"{checkpoint} holds no tokenizer, so it cannot read text")
    texts, nats = documents_to_measure(data)
    stream = encode_documents(
        texts, Tokenizer.from_bytes(opened.tokenizer), what=data, source_nats=nats
    )
    result = evaluate(opened.model, stream, seq_len=seq_len)
    if not math.isfinite(result.loss):
        raise RunError(f"{checkpoint} has weights that are not finite: use an earlier checkpoint")
    if as_json:
        print(json.dumps({"checkpoint": str(checkpoint), "step": opened.step, **result.as_dict()}))
        return
    print(f"loss           {result.loss:.4f} nats a token")
    print(f"perplexity     {result.perplexity:.3f}")
    print(f"bits per byte  {result.bits_per_byte:.4f}")
    if result.above_floor:
        print(result.above_floor)
    print(
        f"on {result.tokens:,} tokens of {result.documents:,} documents "
        f"({result.text_bytes:,} bytes)"
    )


@app.command(name="baselines")
def baselines_(
    data: Annotated[str, typer.Option(help=f"What to count on: {SOURCE_HELP}")],
    tokenizer: Annotated[Path, typer.Option(help="A tokenizer.json with an end-of-text token.")],
    valid: Annotated[
        str | None, typer.Option(help="What to measure on; without it a twentieth of --data.")
    ] = None,
    order: Annotated[int, typer.Option(help="The longest n-gram, 1 to 5.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Measure what counting words achieves: unigram, bigram, trigram, held out.

    What a model has to beat. The counts are smoothed by interpolated
    Kneser-Ney; losses are in nats a token, on the same tokens as those of
    phi-train eval.

    Example: phi-train baselines --data train.txt --valid valid.txt
    --tokenizer runs/gpt-1m/tokenizer.json
    """
    if not 1 <= order < len(NAMES):
        raise ConfigError(f"--order is {order}; it must be between 1 and {len(NAMES) - 1}")
    loaded = Tokenizer.load(tokenizer)
    corpus = open_corpus(data, valid or "")
    counted = encode_documents(corpus.train, loaded, what=data)
    measured = encode_documents(corpus.valid, loaded, what=valid or f"the held-out part of {data}")
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

    Two tries for each parameter: along one random direction through all of its
    elements, and along a few single elements. Exit code 1 when one is off by
    more than 1e-7, relative.

    Example: phi-train check-gradients --preset gpt-10k
    """
    if seed < 0:
        raise ConfigError(f"--seed is {seed}; it must be 0 or more")
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


app.command(name="run")(run)
app.command(name="demo")(demo)
app.add_typer(data_app, name="data")
app.add_typer(experiment_app, name="experiment")
app.add_typer(improve_app, name="improve")
add_commands_to_see(app)


def main() -> None:
    """The entry point: a user's mistake is one line and an exit code that is not 0."""
    console.run(app, "phi-train", errors=ERRORS)
