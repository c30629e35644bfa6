"""The phi-infer command."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import phi_infer
from phi_infer import formats
from phi_infer.cli_bench import bench
from phi_infer.cli_serve import serve
from phi_infer.errors import PhiInferError, SamplingError
from phi_infer.generator import Generator
from phi_infer.request import Completion, TokenChoice
from phi_model import PhiModelError
from phi_tokenizer import TokenizerError, console

__all__ = ["app", "main"]

app = typer.Typer(
    help="Text from small language models, streamed as it is made.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

CheckpointPath = Annotated[
    Path,
    typer.Argument(
        help="A model: a .phi file such as runs/first/best.phi, a .gguf, llama2.c's .bin, or a "
        "folder in Hugging Face's layout."
    ),
]
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
    frequency_penalty: Annotated[
        float,
        typer.Option(help="Taken off a token's logit each time it was drawn, -2 to 2; try 0.5."),
    ] = 0.0,
    presence_penalty: Annotated[
        float, typer.Option(help="Taken off once for tokens that were drawn at all, -2 to 2.")
    ] = 0.0,
    logit_bias: Annotated[
        list[str] | None,
        typer.Option(
            help="ID=VALUE: added to a token's logit; -100 bans it, 100 forces it; repeatable. "
            "phi-tokenizer encode shows ids."
        ),
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End where this text would appear; repeatable.")
    ] = None,
    context: Annotated[
        str,
        typer.Option(
            help="Beyond the length that a GPT was trained on: window (it sees the last tokens "
            "only) or stop (the text ends). RWKV-7 has no such length."
        ),
    ] = "window",
    seed: Annotated[
        int | None, typer.Option(help="The same seed gives the same text; random without.")
    ] = None,
    num_samples: Annotated[int, typer.Option(help="How many texts, seeds counting up.")] = 1,
    log_probs: Annotated[
        int | None,
        typer.Option(
            help="With --json: log-probabilities of each token and of so many alternatives."
        ),
    ] = None,
    from_state: Annotated[
        Path | None, typer.Option(help="Go on from a file of --save-state; then the prompt.")
    ] = None,
    save_state: Annotated[
        Path | None,
        typer.Option(help="Write what the model remembers of prompt and text to this file."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Continue a prompt, showing the text as it is made.

    It ends where the model ends it, at --stop, or after --max-tokens.

    Each token is drawn at random: --temperature sharpens the model's
    probabilities (below 1) or flattens them (above 1), then --top-k, --top-p
    and --min-p take unlikely tokens out. Before that, penalties lower the
    tokens that came already, and --logit-bias any that you name.

    Example: phi-infer generate runs/first/best.phi --prompt "Once upon a time"

    The same text every time, the likeliest token at each place: --temperature 0

    Ten texts for a program to read: --num-samples 10 --seed 1 --json

    A long prompt read once: --max-tokens 0 --save-state prompt.state, and from
    then on --from-state prompt.state
    """
    if num_samples < 1:
        raise SamplingError(f"--num-samples is {num_samples}; it must be 1 or more")
    if log_probs is not None and not as_json:
        raise SamplingError("--log-probs are shown with --json only: add it")
    if save_state is not None and num_samples > 1:
        raise SamplingError("--save-state keeps one text: leave out --num-samples")
    first_seed = secrets.randbelow(2**32) if seed is None else seed
    options: dict[str, Any] = {
        "max_tokens": max_tokens,
        "stop": stop or [],
        "context": context,
        "log_probs": log_probs,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repeat_penalty": repeat_penalty,
        "frequency_penalty": frequency_penalty,
        "presence_penalty": presence_penalty,
        "logit_bias": dict(_bias(entry) for entry in logit_bias or []),
    }
    generator = phi_infer.load(checkpoint, prompt_cache=1)
    if from_state is not None:
        options["state"] = generator.load_state(from_state)
    if as_json:
        made = _complete(generator, prompt, num_samples, first_seed, options)
        samples = [_as_dict(generator, one) for one in made]
        print(json.dumps({"prompt": prompt, "samples": samples}, ensure_ascii=False))
    else:
        made = [
            _tell(generator, prompt, options | {"seed": first_seed + number}, first=not number)
            for number in range(num_samples)
        ]
    if save_state is not None:
        state = generator.read(prompt, state=options.get("state"))
        state.read(made[0].ids)
        generator.save_state(state, save_state)


def _bias(entry: str) -> tuple[int, float]:
    token, _, value = entry.partition("=")
    try:
        return int(token), float(value)
    except ValueError:
        raise SamplingError(
            f"--logit-bias {entry!r} is no ID=VALUE, such as 17=-100; ids are whole numbers"
        ) from None


def _complete(
    generator: Generator, prompt: str, number: int, seed: int, options: dict[str, Any]
) -> list[Completion]:
    """So many texts, seeds counting up; side by side where they are several."""
    if number > 1:
        return generator.complete_batch([prompt] * number, seed=seed, **options)
    return [generator.complete(prompt, seed=seed + i, **options) for i in range(number)]


def _tell(generator: Generator, prompt: str, options: dict[str, Any], *, first: bool) -> Completion:
    """Shows a text as it is made."""
    request, pieces = generator.start(prompt, **options)
    if not first:
        print("\n---")
    _show(prompt)
    for piece in pieces:
        _show(piece)
    print(flush=True)
    return request.completion()


def _as_dict(generator: Generator, made: Completion) -> dict[str, Any]:
    found: dict[str, Any] = {
        "seed": made.seed,
        "text": made.text,
        "finish": made.finish,
        "tokens": len(made.ids),
    }
    if made.choices:
        found["log_probs"] = [_choice_dict(generator, choice) for choice in made.choices]
    return found


def _choice_dict(generator: Generator, choice: TokenChoice) -> dict[str, Any]:
    def entry(token: int, log_prob: float) -> dict[str, Any]:
        text = generator.tokenizer.token_bytes(token).decode(errors="replace")
        return {"id": token, "text": text, "log_prob": log_prob}

    return entry(choice.id, choice.log_prob) | {
        "alternatives": [entry(*other) for other in choice.alternatives]
    }


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@app.command()
def score(
    checkpoint: CheckpointPath,
    file: Annotated[
        Path | None, typer.Argument(help="A text in UTF-8; standard input without it and --text.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="The text itself.")] = None,
    end: Annotated[
        bool, typer.Option(help="Count the end of the text too, as a token to be predicted.")
    ] = False,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Show each token and its log-probability in nats.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure how probable a text is to a model: nats a token, perplexity, bits a byte.

    The text is read as one document from its start; each token is predicted
    from all before it, of which a GPT sees its context at most. The less, the
    better the model knows such texts. For whole data sets: phi-train eval.

    Example: phi-infer score runs/first/best.phi --text "Once upon a time"
    """
    if text is not None and file is not None:
        raise SamplingError(f"give --text or the file {file}, not both")
    generator = phi_infer.load(checkpoint)
    result = generator.score(_text_of(file) if text is None else text, end=end)
    if not result.ids:
        raise SamplingError("the text is empty: there is nothing to score")
    facts = {
        "loss": result.loss,
        "perplexity": result.perplexity,
        "bits_per_byte": result.bits_per_byte if result.n_bytes else None,
        "tokens": len(result.ids),
        "bytes": result.n_bytes,
    }
    pairs = list(zip(result.ids, result.log_probs, strict=True))
    if as_json:
        each = {"ids": result.ids, "log_probs": result.log_probs} if tokens else {}
        print(json.dumps(facts | each))
        return
    if tokens:
        for token, log_prob in pairs:
            print(f"{log_prob:10.4f}  {generator.tokenizer.token_bytes(token)!r}")
    print(f"loss           {result.loss:.4f} nats a token")
    print(f"perplexity     {result.perplexity:.3f}")
    print(f"bits per byte  {result.bits_per_byte:.4f}")
    print(f"on {len(result.ids):,} tokens ({result.n_bytes:,} bytes)")


def _text_of(file: Path | None) -> str:
    data = sys.stdin.buffer.read() if file is None else file.read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise SamplingError(f"{file or 'standard input'} is not UTF-8 text: {error}") from None


@app.command()
def convert(
    source: CheckpointPath,
    target: Annotated[
        Path, typer.Argument(help="What to write: a file, or for safetensors a folder.")
    ],
    to: Annotated[str, typer.Option(help="phi, safetensors, gguf or llama2c.")],
    dtype: Annotated[
        str,
        typer.Option(help="How weights are stored: float32, float16, or int8 (phi, gguf)."),
    ] = "float32",
) -> None:
    """Write a model in another format; every format can be read again.

    phi: the project's own, one file (float32, float16, int8).
    safetensors: a folder in Hugging Face's Llama layout, which transformers
    loads as LlamaForCausalLM with its tokenizer (float32, float16).
    gguf: one file for llama.cpp and what is built on it (float32, float16,
    int8).
    llama2c: model.bin, and tokenizer.bin beside it, for llama2.c's run
    (float32).

    What a format has no place for is told: RWKV-7 and QK-norm fit .phi only.

    Example: phi-infer convert runs/first/best.phi best.gguf --to gguf --dtype int8
    """
    for path in formats.write(formats.read(source), target, to, dtype=dtype):
        print(path)


@app.command()
def inspect(checkpoint: CheckpointPath, as_json: AsJson = False) -> None:
    """Show what a model file holds: the model's shape, its size, its tokenizer."""
    opened = formats.read(checkpoint)
    config = opened.config
    dtypes = sorted({v.dtype.name for n, v in opened.tensors.items() if n.startswith("model/")})
    weights = checkpoint / "model.safetensors" if checkpoint.is_dir() else checkpoint
    facts: dict[str, Any] = {
        "step": opened.step,
        "parameters": config.n_parameters,
        "non_embedding_parameters": config.n_non_embedding,
        **config.to_dict(),
        "dtypes": ", ".join(dtypes),
        "tokenizer_bytes": len(opened.tokenizer or b""),
        "file_bytes": weights.stat().st_size,
    }
    if as_json:
        print(json.dumps(facts))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value:,}" if type(value) is int else f"{name:<{width}}  {value}")


app.command()(bench)
app.command()(serve)


def main() -> None:
    """The entry point: a user's mistake is one line and an exit code that is not 0."""
    console.run(app, "phi-infer", errors=(PhiInferError, PhiModelError, TokenizerError))
