#!/usr/bin/env python3
"""The inherited optimisation log, OPT-001 to OPT-008, measured again on this code; its findings on
dispatch and FLOPs; and what a port to C could gain.

    pip install threadpoolctl
    python benchmarks/optimisation_log.py [--rounds 9] [--parts log,gemm,dispatch,port] [--write]

"Before" is a plain twin written for the comparison (optimisation_log_twins.py), or the general
way that the entry replaced; results are compared before anything is timed. One BLAS thread, but for
the port's bound, which is the benchmark of the training step: two workers. Under five minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from optimisation_log_gemm import compiled_gemm
from optimisation_log_twins import count_again_merges, quadratic_encode, unfused_mlp
from report import in_turns, machine, medians, write_section
from threadpoolctl import threadpool_limits
from training_step import SHAPES
from training_step_ours import OurStep

from phi_model import GPT, ModelConfig, build_model
from phi_model.layer import mlp_sublayer, mlp_sublayer_backward
from phi_model.reference import ReferenceGPT
from phi_model.workspace import Workspace
from phi_optim import GradientMean
from phi_tokenizer import Tokenizer
from phi_tokenizer.splitter import Splitter
from phi_train.corpus import builtin_stories

Call = Callable[[], object]
Row = tuple[str, str, str, str, str]  # entry, inherited gain, before, after, gain

PRODUCTS = [  # rows, depth, tokens: a layer's and the head's, of 128 and 256 channels
    (384, 128, 512),
    (128, 128, 512),
    (1024, 128, 512),
    (128, 512, 512),
    (2048, 256, 512),
    (256, 1024, 512),
    (1024, 256, 2048),
]


def main() -> None:
    """Runs the parts asked for, prints them, writes them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--parts", default="log,gemm,dispatch,port")
    parser.add_argument("--write", action="store_true", help="put the result into RESULTS.md")
    options = parser.parse_args()
    made = {"log": log, "gemm": gemm, "dispatch": dispatch, "port": port}
    lines = [
        "## The optimisation log, measured again",
        "",
        "`python benchmarks/optimisation_log.py --write`: medians of "
        f"{options.rounds}, before and after in turns, one thread unless it says otherwise.",
        "",
        f"{machine()}.",
    ]
    started = time.perf_counter()
    for name in options.parts.split(","):
        text = made[name](options.rounds)
        print("\n".join(text), flush=True)
        lines += ["", *text]
    print(f"\n{time.perf_counter() - started:.0f} s")
    if options.write:
        write_section("optimisation-log", "\n".join(lines))


# --- the eight entries --------------------------------------------------------------------------


def log(rounds: int) -> list[str]:
    """A row for each entry but OPT-007, which is gemm()."""
    rows = []
    with threadpool_limits(limits=1, user_api="blas"):
        for entry in (fused_mlp, encode, train_tokenizer, mapped, rope, accumulation, rwkv):
            rows += entry(rounds)
    head = ["| | there | before | after | gain |", "|---|---|---|---|---|"]
    return head + ["| " + " | ".join(row) + " |" for row in rows]


def compared(before: Call, after: Call, rounds: int) -> tuple[float, float]:
    """Median seconds of each."""
    times = medians(in_turns({"before": before, "after": after}, rounds=rounds, warm=1))
    return times["before"], times["after"]


def timed_row(what: str, there: str, times: tuple[float, float]) -> Row:
    before, after = times
    return what, there, spoken(before), spoken(after), f"{before / after:.2f} x"


def spoken(seconds: float) -> str:
    """In the unit that fits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.2f} {unit}"
    return f"{seconds * 1e6:.1f} us"


def fused_mlp(rounds: int) -> list[Row]:
    """Forward and backward of one MLP sublayer; the after includes its norm and residual."""
    rows = []
    for n_embd, batch in ((128, 4), (256, 8)):
        config = ModelConfig(vocab_size=64, n_embd=n_embd, n_layer=1, n_head=4, seq_len=128)
        model = GPT(config, seed=0)
        p, g = model.parameters, model.gradients
        ws = Workspace(config, batch, 128, dtype=np.float32, keep=True)
        kept, f = ws.layers[0], config.n_hidden
        rng = np.random.default_rng(0)
        x = rng.standard_normal(kept.x_mid.shape, dtype=np.float32)
        dy = rng.standard_normal(x.shape, dtype=np.float32)
        p["layers.0.mlp.down"][...] = rng.standard_normal((n_embd, f), dtype=np.float32) / 16
        out = np.empty_like(x)
        gate, up = p["layers.0.mlp.gate_up"][:f], p["layers.0.mlp.gate_up"][f:]

        def after() -> None:
            kept.x_mid[...], ws.dx[...] = x, dy  # noqa: B023 (called within this turn)
            mlp_sublayer(ws, kept, p, 0, x_out=out)  # noqa: B023
            mlp_sublayer_backward(ws, kept, p, g, 0)  # noqa: B023

        after()
        h = kept.mlp_h.copy()  # what the norm made of x
        before = partial(unfused_mlp, h, gate, up, p["layers.0.mlp.down"], dy)
        y, (_, dgate, _, ddown) = before()
        assert np.abs(x + y - out).max() < 1e-3
        assert np.abs(ddown - g["layers.0.mlp.down"]).max() < 1e-3 * np.abs(ddown).max()
        assert np.abs(dgate - g["layers.0.mlp.gate_up"][:f]).max() < 1e-3 * np.abs(dgate).max()
        times = compared(before, after, 5 * rounds)
        rows.append(timed_row(f"OPT-001 fused MLP, {n_embd}d, {batch} x 128", "+40 %", times))
    return rows


def encode(rounds: int) -> list[Row]:
    """Whole stories, nothing remembered from before; and one long piece without a space."""
    texts = builtin_stories(60, validation=True)[0]
    tokenizer = Tokenizer.train(builtin_stories(1500, validation=False)[0], vocab_size=1024)
    made = tokenizer.to_bytes()
    v = tokenizer.vocabulary
    first = [v.ids[bytes([byte])] for byte in range(256)]
    table = {pair: (i, new) for i, (pair, new) in enumerate(zip(v.merges, v.merged, strict=True))}
    split = Splitter("gpt2").split
    letters = "".join(c for text in texts for c in text if c.isalpha())[:4000]

    def before(text: str) -> list[int]:
        return quadratic_encode([piece.encode() for piece in split(text)], first, table)

    rows = []
    for what, parts in (("60 stories", texts), ("4,000 letters without a space", [letters])):
        fresh = Tokenizer.from_bytes(made)
        assert [before(text) for text in parts] == [fresh.encode(text) for text in parts]
        pool = iter([Tokenizer.from_bytes(made) for _ in range(rounds + 2)])

        def after(pool=pool, parts=parts) -> None:
            cold = next(pool)
            for text in parts:
                cold.encode(text)

        def plain(parts=parts) -> None:
            for text in parts:
                before(text)

        times = compared(plain, after, rounds)
        rows.append(timed_row(f"OPT-002 BPE encoding, cold, {what}", "21 x", times))
    return rows


def train_tokenizer(rounds: int) -> list[Row]:
    """256 merges on a quarter of a megabyte."""
    texts = builtin_stories(700, validation=False)[0]
    split = Splitter("gpt2").split
    first = [Tokenizer.train(["a"], vocab_size=256).encode_single_token(bytes([b])) for b in BYTES]
    pieces = Counter(piece.encode() for text in texts for piece in split(text))

    def after() -> list[tuple[int, int]]:
        return list(Tokenizer.train(texts, vocab_size=512).vocabulary.merges)

    def before() -> list[tuple[int, int]]:
        counted = Counter(piece.encode() for text in texts for piece in split(text))
        return count_again_merges(counted, first, 256)

    assert before() == after()
    what = f"OPT-003 BPE training, 256 merges, {len(pieces):,} distinct pieces"
    return [timed_row(what, "50 x", compared(before, after, max(2, rounds // 3)))]


BYTES = range(256)


def mapped(rounds: int) -> list[Row]:
    """The first batch of 50 million tokens, 100 MB, whose pages are in the system's cache."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokens")
        np.arange(50_000_000, dtype=np.uint16).tofile(path)
        starts = np.random.default_rng(0).integers(0, 49_000_000, 4)[:, None] + np.arange(129)

        def before() -> np.ndarray:
            return np.fromfile(path, np.uint16)[starts]

        def after() -> np.ndarray:
            return np.memmap(path, np.uint16, mode="r")[starts]

        assert (before() == after()).all()
        times = compared(before, after, rounds)
    return [timed_row("OPT-004 mapped data, 100 MB, to the first batch", "-", times)]


def rope(rounds: int) -> list[Row]:
    """Not a matter of time: how far the slope of the loss is off along a random direction."""
    del rounds
    config = ModelConfig(vocab_size=16, n_embd=16, n_layer=2, n_head=2, seq_len=16)
    rng = np.random.default_rng(0)
    p = {
        name: rng.standard_normal(value.shape) * (0.5 if value.ndim > 1 else 1)
        for name, value in GPT(config).parameters.items()
    }
    ids, targets = rng.integers(0, 16, (2, 4, 16))
    direction = {name: rng.standard_normal(value.shape) for name, value in p.items()}

    def loss(t: float) -> float:
        moved = {name: value + t * direction[name] for name, value in p.items()}
        return ReferenceGPT(config, moved).loss_and_grad(ids, targets)[0]

    h = 1e-5  # the direction is long: each parameter moves by about h
    slope = (loss(-2 * h) - 8 * loss(-h) + 8 * loss(h) - loss(2 * h)) / (12 * h)

    def error(model: ReferenceGPT) -> float:
        _, g = model.loss_and_grad(ids, targets)
        claimed = sum(float((g[name] * direction[name]).sum()) for name in p)
        return abs(claimed - slope) / abs(slope)

    before, after = error(NoTurningBack(config, p)), error(ReferenceGPT(config, p))
    what = "OPT-005 exact RoPE backward: error of the slope"
    return [(what, "exact", f"{before:.1e}", f"{after:.1e}", "right")]


class NoTurningBack(ReferenceGPT):
    """RoPE left out of the backward pass."""

    def turn_backward(self, dy: np.ndarray, kept: object) -> np.ndarray:  # noqa: ARG002
        return dy


def accumulation(rounds: int) -> list[Row]:
    """One batch a step: a buffer that is always there, or none."""
    model = GPT(ModelConfig.preset("gpt-1m"), seed=0)
    batch = np.random.default_rng(0).integers(0, 1024, (2, 4, 128))
    mean = GradientMean(model.gradients.like())

    def after() -> None:
        model.loss_and_grad(*batch)

    def before() -> None:
        model.loss_and_grad(*batch)
        mean.add(model.gradients)
        mean.take()

    times = compared(before, after, 3 * rounds)
    megabytes = model.gradients.flat.nbytes / 1e6
    what = f"OPT-006 no accumulation buffer ({megabytes:.1f} MB less), forward and backward"
    return [timed_row(what, "-", times)]


def rwkv(rounds: int) -> list[Row]:
    """Before is attention here, after the recurrence in chunks: a gain below 1 is a loss."""
    rows = []
    for length, batch in ((128, 4), (1024, 1)):
        calls = {}
        for name, hidden in (("gpt-1m", 464), ("rwkv7-1m", 0)):
            config = ModelConfig.preset(
                name, seq_len=length, **({"n_hidden": hidden} if hidden else {})
            )
            model = build_model(config, seed=0)
            data = np.random.default_rng(0).integers(0, 1024, (2, batch, length))
            calls[name] = partial(model.loss_and_grad, *data)
        times = compared(calls["gpt-1m"], calls["rwkv7-1m"], rounds)
        what = f"OPT-008 attention, then RWKV-7 of its size, {batch} x {length}"
        rows.append(timed_row(what, "slower", times))
    return rows


# --- OPT-007: a hand-written kernel -------------------------------------------------------------


def gemm(rounds: int) -> list[str]:
    """Our C micro-kernel against numpy's matmul, at the model's shapes."""
    lines = ["OPT-007, a hand-written C matrix product (there: NEON, 2.5 to 4.5 times slower):", ""]
    with (
        tempfile.TemporaryDirectory() as folder,
        threadpool_limits(limits=1, user_api="blas"),
    ):
        product = compiled_gemm(Path(folder))
        if product is None:
            return [*lines, "Not measured: no C compiler."]
        lines += ["| rows, depth, tokens | C, GFLOP/s | numpy, GFLOP/s | C / numpy, time |"]
        lines += ["|---|---|---|---|"]
        for m, k, n in PRODUCTS:
            rng = np.random.default_rng(0)
            a, b = (rng.standard_normal(s, dtype=np.float32) for s in ((m, k), (k, n)))
            ours, numpys = np.empty((m, n), np.float32), np.empty((m, n), np.float32)
            before, after = partial(product, a, b, ours), partial(np.matmul, a, b, out=numpys)
            before()
            after()
            assert np.abs(ours - numpys).max() < 1e-4 * np.abs(numpys).max()
            c, blas = compared(before, after, 10 * rounds)
            speeds = [f"{2e-9 * m * k * n / seconds:.0f}" for seconds in (c, blas)]
            lines.append(f"| {m}, {k}, {n} | {' | '.join(speeds)} | {c / blas:.2f} |")
    return lines


# --- findings 3 and 4: dispatch or FLOPs? -------------------------------------------------------


def dispatch(rounds: int) -> list[str]:
    """The same calls on arrays with next to nothing in them, beside the real step."""
    lines = [
        "Findings 3 and 4, dispatch against FLOPs: one forward and backward pass, one worker. The "
        "empty step is the same layers on 2 tokens with 2 channels a head: Python and numpy's "
        "dispatch and hardly anything else. It makes fewer calls than a long batch, whose work is "
        "cut into blocks: a lower bound.",
        "",
        "| C,L,heads,B,T | GFLOP | ms | GFLOP/s | empty, ms | share |",
        "|---|---|---|---|---|---|",
    ]
    with threadpool_limits(limits=1, user_api="blas"):
        for shape in [(8, 1, 1, 4, 128), (40, 4, 2, 4, 128), *SHAPES]:
            n_embd, n_layer, n_head, batch, length = shape
            real = one_pass(n_embd, n_layer, n_head, batch, length, 1024)
            empty = one_pass(2 * n_head, n_layer, n_head, 1, 2, 8)
            config = ModelConfig(n_embd=n_embd, n_layer=n_layer, n_head=n_head, seq_len=length)
            gigaflops = config.flops_per_token() * batch * length / 1e9
            few = max(3, min(rounds, int(rounds * 20 / gigaflops)))
            seconds, nothing = compared(real, empty, few)
            cells = f"{gigaflops:.2f} | {seconds * 1e3:.1f} | {gigaflops / seconds:.0f}"
            share = f"{nothing * 1e3:.2f} | {nothing / seconds:.1%}"
            lines.append(f"| {','.join(map(str, shape))} | {cells} | {share} |")
    return lines


def one_pass(n_embd: int, n_layer: int, n_head: int, batch: int, length: int, vocab: int) -> Call:
    """A call of loss_and_grad."""
    config = ModelConfig(
        vocab_size=vocab, n_embd=n_embd, n_layer=n_layer, n_head=n_head, seq_len=length
    )
    model = GPT(config, seed=0)
    return partial(
        model.loss_and_grad, *np.random.default_rng(0).integers(0, vocab, (2, batch, length))
    )


# --- would a C port help? -----------------------------------------------------------------------


def port(rounds: int) -> list[str]:
    """The step beside its own matrix products: what C with the same BLAS could at most save."""
    lines = [
        "Would a port to C help? The step's own matrix products, replayed by the same two workers, "
        "are what remains of it when everything else costs nothing:",
        "",
        "| C,L,heads,B,T | step, ms | its products, ms | a port's gain, at most |",
        "|---|---|---|---|",
    ]
    gains = []
    for shape in SHAPES:
        ours = OurStep(shape)
        few = max(3, rounds // 2)
        calls = {"ours": ours.step, "products": ours.replay}
        times = medians(in_turns(calls, rounds=few, warm=2, lead=1))
        ours.model.stop_workers()
        gains.append(times["ours"] / times["products"])
        cells = f"{times['ours'] * 1e3:.1f} | {times['products'] * 1e3:.1f} | {gains[-1]:.2f} x"
        lines.append(f"| {','.join(map(str, shape))} | {cells} |")
    lines += [
        "",
        f"So a port gains at most {min(gains):.2f} to {max(gains):.2f} times, and only if its "
        "norms, softmax, SwiGLU and optimiser cost nothing; with a matrix product of its own in "
        "the place of BLAS it pays the factor of OPT-007 on the larger part.",
    ]
    return lines


if __name__ == "__main__":
    main()
