"""The phi-train command: arguments in, one call to the library, words and numbers out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import phi_train
from phi_infer import PhiInferError
from phi_model import (
    PRESETS,
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
from phi_train.cli_demo import demo, leave_if_stopped, print_levels
from phi_train.cli_see import add_commands_to_see
from phi_train.config import SCHEDULES, TrainConfig
from phi_train.corpus import documents_to_measure, open_corpus
from phi_train.errors import ConfigError, PhiTrainError, RunError
from phi_train.evaluate import evaluate
from phi_train.loop import TrainResult, train
from phi_train.ngram import NAMES, baselines
from phi_train.progress import progress_for
from phi_train.run_folder import RunFolder
from phi_train.tokens import encode_documents

__all__ = ["app", "main"]

app = typer.Typer(
    help="Train small language models from scratch, with nothing but Python and numpy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

ERRORS = (PhiTrainError, PhiModelError, PhiOptimError, PhiInferError, TokenizerError)
SOURCE_HELP = "builtin (phi's own stories), a .txt, .jsonl or .parquet file, or a folder of them."
TEXT, MODEL, BUDGET, LEARN, FOLDER = (  # groups of options
    "Text",
    "Model",
    "How long (one of these)",
    "How it learns",
    "Folder",
)
BUDGETS = ("steps", "tokens", "flops")
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
    data: Annotated[
        str | None, typer.Option(help=f"What to train on: {SOURCE_HELP}", rich_help_panel=TEXT)
    ] = None,
    valid: Annotated[
        str | None,
        typer.Option(
            help="Text to measure on, never trained on; without it a twentieth of --data.",
            rich_help_panel=TEXT,
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="A tokenizer.json; without it one is learnt.", rich_help_panel=TEXT),
    ] = None,
    vocab_size: Annotated[
        int | None,
        typer.Option(
            help="Tokens of the one to be learnt, at least 257. Default 1024.",
            rich_help_panel=TEXT,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(PRESETS)}: the parameters beside the embedding. Default gpt-1m.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    seq_len: Annotated[
        int | None,
        typer.Option(
            help="Tokens that the model sees at once. Default 128.", rich_help_panel=MODEL
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Updates to make. Default 2000.", rich_help_panel=BUDGET)
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(help="Tokens to train on.", rich_help_panel=BUDGET)
    ] = None,
    flops: Annotated[
        float | None,
        typer.Option(help="Floating-point operations to spend, e.g. 1e13.", rich_help_panel=BUDGET),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Rows of --seq-len tokens in a batch. Default 4.", rich_help_panel=LEARN),
    ] = None,
    grad_accum: Annotated[
        int | None,
        typer.Option(
            help="Batches for one update: as one larger batch, in less memory. Default 1.",
            rich_help_panel=LEARN,
        ),
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw.", rich_help_panel=LEARN)] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="The peak. Default 0.002, less for models wider than gpt-1m.",
            rich_help_panel=LEARN,
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help=f"The rate over time: {', '.join(SCHEDULES)}. Default the first.",
            rich_help_panel=LEARN,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Of weights and batches: the same seed, the same model. Default 0.",
            rich_help_panel=LEARN,
        ),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            help="Processes that share a batch: a number, or auto (the default).",
            rich_help_panel=LEARN,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="The run's folder. Default runs/PRESET.", rich_help_panel=FOLDER),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in --out, as if it had never stopped.",
            rich_help_panel=FOLDER,
        ),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file of settings, such as a run's config.toml; options go over it.",
            rich_help_panel=FOLDER,
        ),
    ] = None,
) -> None:
    """Train a model on a text, and see how well it predicts text it has not seen.

    Example: phi-train run --data stories.txt --preset gpt-1m --steps 2000

    Without --valid and --tokenizer both come from --data. Ctrl-C stops after
    the step in hand and saves; go on with: phi-train run --resume --out DIR

    The folder then holds best.phi (for phi-infer), last.phi and checkpoints/
    (to go on from), metrics.jsonl (a line a step), config.toml with every
    setting, tokenizer.json.
    """
    options = {name: value for name, value in locals().items() if value is not None}
    given = {k: v for k, v in options.items() if k not in ("config", "resume")}
    budgets = [name for name in BUDGETS if name in given]
    if len(budgets) > 1:
        raise ConfigError(f"--{' and --'.join(budgets)} are two budgets: give one")
    from_file = _file_settings(config, out, resume=resume, needed="data" not in given)
    if budgets:  # one given here goes over any in the file
        from_file = {k: v for k, v in from_file.items() if k not in BUDGETS}
    settings = TrainConfig.from_dict(from_file | given)
    result = train(settings, resume=resume, progress=progress_for())
    leave_if_stopped(result)
    _print_result(result)


def _file_settings(
    config: Path | None, out: str | None, *, resume: bool, needed: bool
) -> dict[str, Any]:
    """Settings from --config; a resumed run's own config.toml where there is none.

    needed: without that file there is nothing to go by.
    """
    if config is not None:
        return TrainConfig.read(config)
    if not resume:
        return {}
    if not out:
        raise ConfigError("--resume needs the run's folder: name it with --out")
    own = RunFolder(out).config
    if own.exists():
        return TrainConfig.read(own)
    if needed:
        raise RunError(f"{out} holds no run to go on with: check --out, or start one with --data")
    return {}


def _print_result(result: TrainResult) -> None:
    print_levels(result)
    print(
        f"saved in {result.folder.path}. Next:\n"
        f"  phi-infer generate {result.folder.best} --prompt 'Once upon a time'"
    )


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


app.command(name="demo")(demo)
app.add_typer(data_app, name="data")
add_commands_to_see(app)


def main() -> None:
    """The entry point: a user's mistake is one line and an exit code that is not 0."""
    console.run(app, "phi-train", errors=ERRORS)
