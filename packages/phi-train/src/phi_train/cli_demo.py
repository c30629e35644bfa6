"""phi-train demo: the whole path once, watched."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from phi_train.demo import check_stories, demo_config, generator_of, tell_story
from phi_train.loop import TrainResult, train
from phi_train.progress import progress_for
from phi_train.run_folder import RunFolder

__all__ = ["demo", "leave_if_stopped", "print_levels"]

NEXT = """
What to try next:
  phi-infer generate {folder}/last.phi --prompt "Once upon a time" --temperature 0.8
  phi-train check-gradients {folder}/last.phi       every gradient against finite differences
  phi-train eval {folder}/last.phi --data builtin   its distance from the best possible model
  phi-train run --data builtin --steps 6000         the same for longer: the gap keeps shrinking
  phi-train run --data your-own.txt                 your own text"""


def demo(
    seed: Annotated[int, typer.Option(help="The same seed, the same model and stories.")] = 0,
    out: Annotated[str, typer.Option(help="The run's folder. Default runs/demo, numbered.")] = "",
) -> None:
    """Train a small GPT on the builtin stories, and hear it tell one: about two minutes.

    Makes the corpus, learns a tokenizer, trains about a million parameters,
    compares with what counting words achieves and with the best that any model
    could do, checks sampled stories against the grammar, and tells a story.
    """
    folder = out or str(RunFolder.unused("demo").path)
    progress = progress_for()
    result = train(demo_config(seed=seed, out=folder), progress=progress)
    leave_if_stopped(result)
    print_levels(result)
    generator = generator_of(result)
    check = check_stories(generator)
    print(
        f"\n{check.share} stories sampled at temperature 0.8 are sound: every word, and who has "
        "what and who is where.\n\nA story:\n"
    )
    for piece in tell_story(generator, check):
        sys.stdout.write(piece)
        sys.stdout.flush()
    print("\n" + NEXT.format(folder=result.folder.path))


def leave_if_stopped(result: TrainResult) -> None:
    """Says how to go on with a run that Ctrl-C has stopped, and leaves as shells expect."""
    if not result.finished:
        print(
            f"stopped after step {result.step}; everything is saved. Go on with:\n"
            f"  phi-train run --resume --out {result.folder.path}"
        )
        raise typer.Exit(130)


def print_levels(result: TrainResult) -> None:
    """The model among uniform, unigram, bigram, trigram and the floor, worst first."""
    evaluation = result.evaluation
    if evaluation is None:
        return
    rows = {**result.baselines, "this model": evaluation.loss}
    if evaluation.floor_loss is not None:
        rows["the floor"] = evaluation.floor_loss
    print(f"\nheld-out loss, nats a token, on {evaluation.tokens:,} tokens:")
    for name, loss in sorted(rows.items(), key=lambda row: -row[1]):
        print(f"  {name:<12}{loss:7.4f}  {'#' * max(1, round(loss * 8))}")
    print(f"{evaluation.bits_per_byte:.4f} bits a byte, perplexity {evaluation.perplexity:.2f}")
    if evaluation.above_floor:
        print(evaluation.above_floor)
