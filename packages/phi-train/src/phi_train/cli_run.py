"""phi-train run: options and a TOML file in, one training run out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from phi_model import PRESETS, load_checkpoint
from phi_optim import OPTIMIZERS
from phi_train.cli_demo import leave_if_stopped, print_levels
from phi_train.config import BATCHES, SCHEDULES, TrainConfig
from phi_train.errors import ConfigError, RunError
from phi_train.loop import TrainResult, train
from phi_train.progress import progress_for
from phi_train.run_folder import RunFolder

__all__ = ["SOURCE_HELP", "run"]

SOURCE_HELP = (
    "builtin (phi's own stories), tinystories (after data fetch), a .txt, .jsonl or .parquet file, "
    "a folder of them, or one that data prepare made."
)
TEXT, MODEL, BUDGET, LEARN, LOOK, FOLDER = (  # groups of options
    "Text",
    "Model",
    "How long (one of these)",
    "How it learns",
    "What is looked at",
    "Folder and machine",
)
BUDGETS = ("steps", "tokens", "seconds", "flops")
ADOPTED = ("preset", "tokenizer", "vocab_size")  # init_from brings them with it


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
    init_from: Annotated[
        str | None,
        typer.Option(
            help="Begin with the weights of this .phi file, and its tokenizer: fine-tuning.",
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
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Seconds to train; the schedule follows the clock.",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    flops: Annotated[
        float | None,
        typer.Option(help="Floating-point operations to spend, e.g. 1e13.", rich_help_panel=BUDGET),
    ] = None,
    batches: Annotated[
        str | None,
        typer.Option(
            help=f"Windows of the text: {', '.join(BATCHES)}. Default the first.",
            rich_help_panel=LEARN,
        ),
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
    optimizer: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(OPTIMIZERS)}. Default schedule-free.",
            rich_help_panel=LEARN,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="The peak. Default the optimizer's own, less for models wider than gpt-1m.",
            rich_help_panel=LEARN,
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help=f"The rate over time: {', '.join(SCHEDULES)}. Default the optimizer's own.",
            rich_help_panel=LEARN,
        ),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            help="Decay of a moving average of the weights, to evaluate and save; e.g. 0.999.",
            rich_help_panel=LEARN,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="End after so many evaluations without a better one. Default never.",
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
    eval_every: Annotated[
        int | None,
        typer.Option(
            help="Steps between evaluations. Default 250.",
            rich_help_panel=LOOK,
        ),
    ] = None,
    eval_tokens: Annotated[
        int | None,
        typer.Option(
            help="Held-out tokens of each; 0: all of them. Default 16384. The end measures all.",
            rich_help_panel=LOOK,
        ),
    ] = None,
    sample_every: Annotated[
        int | None,
        typer.Option(
            help="Steps between samples of text; 0: none. Default 500.",
            rich_help_panel=LOOK,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="How the samples begin.",
            rich_help_panel=LOOK,
        ),
    ] = None,
    baseline_order: Annotated[
        int | None,
        typer.Option(
            help="The longest n-gram to compare with, 1 to 5. Default 3.",
            rich_help_panel=LOOK,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="The run's folder. Default runs/PRESET.", rich_help_panel=FOLDER),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            help="Steps between checkpoints; 0: at the end only. Default 500.",
            rich_help_panel=FOLDER,
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            help="Numbered checkpoints to keep. Default 3.",
            rich_help_panel=FOLDER,
        ),
    ] = None,
    guard: Annotated[
        bool | None,
        typer.Option(
            "--guard",
            help="Pause while battery or memory are low, or it is too hot (the extra: guard).",
            rich_help_panel=FOLDER,
        ),
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
    setting (there are more than options here), tokenizer.json.
    """
    options = {name: value for name, value in locals().items() if value is not None}
    given = {k: v for k, v in options.items() if k not in ("config", "resume")}
    budgets = [name for name in BUDGETS if name in given]
    if len(budgets) > 1:
        raise ConfigError(f"--{' and --'.join(budgets)} are two budgets: give one")
    for name in budgets:
        if not given[name] > 0:
            raise ConfigError(f"--{name} is {given[name]}; a budget must be above 0")
    from_file = _file_settings(config, out, resume=resume, needed="data" not in given)
    if budgets:  # one given here goes over any in the file
        from_file = {k: v for k, v in from_file.items() if k not in BUDGETS}
    settings = TrainConfig.from_dict(_adopted(given, from_file) | from_file | given)
    result = train(settings, resume=resume, progress=progress_for())
    leave_if_stopped(result)
    _print_result(result)


def _adopted(given: dict[str, Any], from_file: dict[str, Any]) -> dict[str, Any]:
    """What --init-from decides. Raises ConfigError for options that contradict it."""
    if "init_from" not in given:
        return {}
    odd = [f"--{name.replace('_', '-')}" for name in ADOPTED if name in given]
    if odd:
        raise ConfigError(
            f"--init-from brings the model and its tokenizer with it: leave out {', '.join(odd)}"
        )
    for name in ADOPTED:
        from_file.pop(name, None)
    return {"seq_len": load_checkpoint(given["init_from"], verify=False).config.seq_len}


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
