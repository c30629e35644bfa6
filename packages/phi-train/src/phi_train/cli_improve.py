"""phi-train improve: models that learn from what they wrote themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phi_train.errors import Stopped

if TYPE_CHECKING:
    from phi_train.improve.pause import Pause

__all__ = ["improve_app"]

improve_app = typer.Typer(
    help="Let a model learn from its own text, and measure whether that helps.",
    no_args_is_help=True,
)

STOPPED = 130  # as shells expect after Ctrl-C

Out = Annotated[
    str, typer.Option(help="The folder, in which the same command goes on. Default: in runs/.")
]
Seed = Annotated[int, typer.Option(help="The same seed, the same result.")]
Workers = Annotated[int, typer.Option(help="Processes that share the work.")]
Guard = Annotated[
    bool, typer.Option("--guard", help="Pause while battery, memory or heat are bad.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")]


@improve_app.command(name="star")
def star(
    preset: Annotated[str, typer.Option(help="The model's shape.")] = "gpt-1m",
    out: Out = "",
    seed: Seed = 0,
    rationales: Annotated[int, typer.Option(help="Examples with a rationale.")] = 500,
    base_steps: Annotated[int, typer.Option(help="Updates of the base.")] = 2400,
    stories: Annotated[int, typer.Option(help="Texts without questions, for the base.")] = 12_000,
    iterations: Annotated[int, typer.Option(help="Rounds of sampling and training.")] = 3,
    tasks: Annotated[int, typer.Option(help="New tasks in each iteration.")] = 1500,
    steps: Annotated[int, typer.Option(help="Updates of each fine-tuning.")] = 500,
    learning_rate: Annotated[float, typer.Option(help="The peak of each fine-tuning.")] = 1e-3,
    events: Annotated[int, typer.Option(help="Difficulties: 1 to so many events.")] = 6,
    test: Annotated[int, typer.Option(help="Tasks to measure on.")] = 600,
    comparisons: Annotated[
        bool,
        typer.Option(help="Also no rationale, majorities, unverified samples, no new examples."),
    ] = True,
    workers: Workers = 1,
    guard: Guard = False,
    as_json: AsJson = False,
) -> None:
    """STaR: reason aloud, keep what led to right answers, learn from it, repeat.

    Short stories of the builtin grammar end in a question with an exact answer
    (who has the ball? how many plums are left?). A base model is trained on
    stories and a few rationales; then it answers new tasks, tries failures again
    at higher temperatures and with the answer as a hint, and the base is
    fine-tuned on all rationales that ended in the right answer. Writes every
    example with its verdict, results.json and report.html. Ctrl-C, or kill -9,
    loses at most a minute: the same command goes on.

    Example: phi-train improve star --workers 2
    """
    from phi_train.improve.star import run_star  # noqa: PLC0415 (for this command alone)
    from phi_train.improve.star_config import StarConfig  # noqa: PLC0415
    from phi_train.improve.star_page import write_star_page  # noqa: PLC0415

    config = StarConfig(
        preset=preset,
        seed=seed,
        stories=stories,
        rationales=rationales,
        base_steps=base_steps,
        iterations=iterations,
        tasks=tasks,
        steps=steps,
        learning_rate=learning_rate,
        events=tuple(range(1, events + 1)),
        test=test,
        comparisons=comparisons,
    )
    folder = Path(out or f"runs/star-{preset}-seed{seed}")
    results = _work(
        folder,
        guard,
        as_json,
        lambda pause, tell: run_star(folder, config, workers=workers, pause=pause, tell=tell),
    )
    page = write_star_page(folder)
    if as_json:
        print(json.dumps({"report": str(page), **results}))
        return
    _print_star(results)
    print(f"wrote {page}")


@improve_app.command(name="spin")
def spin(
    checkpoint: Annotated[Path, typer.Argument(help="A .phi file to begin with.")],
    data: Annotated[str, typer.Option(help="Real texts: builtin, tinystories or a path.")] = (
        "builtin"
    ),
    valid: Annotated[str, typer.Option(help="Texts to measure on; else a part of --data.")] = "",
    out: Out = "",
    seed: Seed = 0,
    iterations: Annotated[int, typer.Option(help="Times that it plays against itself.")] = 3,
    pairs: Annotated[int, typer.Option(help="Continuations in each iteration.")] = 1024,
    max_tokens: Annotated[int, typer.Option(help="Of a continuation.")] = 64,
    scale: Annotated[float, typer.Option(help="Lambda of the loss.")] = 0.1,
    steps: Annotated[int, typer.Option(help="Updates in each iteration.")] = 200,
    learning_rate: Annotated[float, typer.Option(help="The peak.")] = 1e-4,
    workers: Workers = 1,
    guard: Guard = False,
    as_json: AsJson = False,
) -> None:
    """SPIN: learn to prefer real continuations to one's own, against oneself as one was.

    Measures, after each iteration and on held-out texts: bits a byte, how often
    the real text is preferred, how far generated text is from real (n-grams and
    a small classifier), diversity and repetition. Ctrl-C, or kill -9, loses at
    most a minute: the same command goes on.

    Example: phi-train improve spin runs/demo/best.phi --data builtin --workers 2
    """
    from phi_train.improve.spin import SpinConfig, run_spin  # noqa: PLC0415
    from phi_train.improve.spin_page import write_spin_page  # noqa: PLC0415

    config = SpinConfig(
        checkpoint=str(checkpoint),
        data=data,
        valid=valid,
        seed=seed,
        iterations=iterations,
        pairs=pairs,
        max_tokens=max_tokens,
        scale=scale,
        steps=steps,
        learning_rate=learning_rate,
    )
    folder = Path(out or f"runs/spin-{checkpoint.parent.name or 'model'}-seed{seed}")
    results = _work(
        folder,
        guard,
        as_json,
        lambda pause, tell: run_spin(folder, config, workers=workers, pause=pause, tell=tell),
    )
    page = write_spin_page(folder)
    if as_json:
        print(json.dumps({"report": str(page), **results}))
        return
    print(f"{'':<8}bits a byte  preferred  told apart  divergence of pairs")
    for name, m in results["measured"].items():
        preferred = "" if m["preference"] is None else f"{m['preference']:.1%}"
        print(
            f"{name:<8}{m['bits_per_byte']:11.4f}  {preferred:>9}  {m['classifier']:10.1%}  "
            f"{m['divergence']['2']:.4f}"
        )
    print(f"wrote {page}")


def _work(
    folder: Path,
    guard: bool,
    quiet: bool,
    call: Callable[[Pause, Callable[[str, int, int, str], None]], dict[str, Any]],
) -> dict[str, Any]:
    """Runs it so that Ctrl-C ends it between two steps."""
    from phi_train.guard import machine_guard  # noqa: PLC0415
    from phi_train.improve.narrator import Narrator  # noqa: PLC0415
    from phi_train.improve.pause import Pause  # noqa: PLC0415
    from phi_train.interrupt import StopRequest  # noqa: PLC0415

    watch = machine_guard() if guard else None
    tell = (lambda *_: None) if quiet else Narrator()
    with StopRequest() as stop:
        try:
            return call(Pause(lambda: stop.requested, watch), tell)
        except Stopped:
            print(f"\nstopped; everything so far is in {folder}: the same command goes on")
            raise typer.Exit(STOPPED) from None


def _print_star(results: dict[str, Any]) -> None:
    width = max(len(name) for name in results["measured"])
    for name, values in results["measured"].items():
        gain = results["over_base"].get(name)
        over = (
            f"   {100 * gain['mean']:+5.1f} points over the base "
            f"({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"
            if gain
            else ""
        )
        print(f"{name:<{width}}  {values['accuracy']:6.1%}{over}")
    print(f"chosen on the development tasks: {results['best']}")
