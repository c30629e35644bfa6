"""One peer of the inference benchmark in a process of its own: reads a line, measures, answers.

A line is JSON: {"what": ..., "model": ..., ...}; so is the answer. The
number of threads is the environment's.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from inference_models import TOKENS, random_model

STREAMS = 32
BATCH_STEPS = 64

Step = Callable[[int], Any]


def greedy(step: Step, first: int = 1, tokens: int = TOKENS - 1) -> dict[str, Any]:
    """Tokens a second of a text, each token the last one's most probable successor. The first is
    not counted: it waits for cold memory, and llama2.c begins its own count after it, too.
    """
    ids = [int(step(first).argmax())]
    start = time.perf_counter()
    while len(ids) < tokens:
        ids.append(int(step(ids[-1]).argmax()))
    return {"rate": (tokens - 1) / (time.perf_counter() - start), "ids": ids}


@cache
def weights(kind: str, name: str) -> Any:
    """Our model, folded."""
    from phi_infer.steps import fold  # noqa: PLC0415 (a peer's process does not need it)

    model = random_model(kind, name)
    folded = fold(model.config, model.parameters)
    folded.head  # noqa: B018 (folds)
    return folded


def ours_step(kind: str, model: str) -> dict[str, Any]:
    """Our step."""
    from phi_infer.steps import new_step  # noqa: PLC0415

    return greedy(new_step(weights(kind, model)))


def ours_prefill(kind: str, model: str) -> dict[str, Any]:
    """Our rate of reading a prompt of 256 tokens, and of reading it one by one."""
    from phi_infer.steps import new_step  # noqa: PLC0415

    folded = weights(kind, model)
    ids = np.random.default_rng(1).integers(0, folded.config.vocab_size, TOKENS).tolist()
    step = new_step(folded)
    start = time.perf_counter()
    whole = step.prefill(ids)
    middle = time.perf_counter()
    step = new_step(folded)
    for token in ids:
        last = step(token)
    end = time.perf_counter()
    same = bool(np.abs(whole - last).max() < 1e-3 * np.abs(last).max())
    return {"rate": TOKENS / (middle - start), "one_by_one": TOKENS / (end - middle), "same": same}


def ours_batch(kind: str, model: str) -> dict[str, Any]:
    """Tokens a second of 32 streams together, over two workers, and of one stream alone."""
    from phi_infer.steps import new_batch, new_step  # noqa: PLC0415

    folded = weights(kind, model)
    batch = new_batch(folded, STREAMS, workers=2)
    try:
        slots = [batch.add([1 + i]) for i in range(STREAMS)]
        ids = [batch.logits.argmax(axis=1)]
        ids.append(batch.step(slots, ids[-1]).argmax(axis=1))
        start = time.perf_counter()
        while len(ids) < BATCH_STEPS:
            ids.append(batch.step(slots, ids[-1]).argmax(axis=1))
        seconds = time.perf_counter() - start
    finally:
        batch.close()
    alone = greedy(new_step(folded), first=1, tokens=BATCH_STEPS)
    same = alone["ids"] == [int(row[0]) for row in ids]
    return {"rate": STREAMS * (BATCH_STEPS - 2) / seconds, "same": same, "alone": alone["rate"]}


@cache
def torch_gpt(model: str) -> Any:
    """The same GPT in torch eager, with a cache of keys and values."""
    import torch  # noqa: PLC0415
    import torch.nn.functional as F  # noqa: PLC0415

    source = random_model("gpt", model)
    c = source.config
    p = {name: torch.from_numpy(value.copy()) for name, value in source.parameters.items()}
    d, heads = c.head_size, c.n_head
    angles = torch.outer(torch.arange(c.seq_len), c.rope_base ** (-torch.arange(0, d, 2) / d))
    cos, sin = (torch.cat([t, t], 1) for t in (angles.cos(), angles.sin()))
    cache_ = torch.zeros(c.n_layer, 2, heads, c.seq_len, d)
    state = {"position": 0}

    def turn(x: Any, position: int) -> Any:
        half = torch.cat([-x[:, d // 2 :], x[:, : d // 2]], 1)
        return x * cos[position] + half * sin[position]

    @torch.inference_mode()
    def step(token: int) -> Any:
        at = state["position"]
        x = p["embedding"][token]
        for i in range(c.n_layer):
            h = F.rms_norm(x, (c.n_embd,), p[f"layers.{i}.attention_norm.gain"], c.norm_eps)
            q, k, v = F.linear(h, p[f"layers.{i}.attention.qkv"]).view(3, heads, d)
            cache_[i, 0, :, at] = turn(k, at)
            cache_[i, 1, :, at] = v
            keys, values = cache_[i, :, :, : at + 1]
            y = F.scaled_dot_product_attention(turn(q, at)[:, None], keys, values)
            x = x + F.linear(y.flatten(), p[f"layers.{i}.attention.out"])
            h = F.rms_norm(x, (c.n_embd,), p[f"layers.{i}.mlp_norm.gain"], c.norm_eps)
            gate, up = F.linear(h, p[f"layers.{i}.mlp.gate_up"]).chunk(2)
            x = x + F.linear(F.silu(gate) * up, p[f"layers.{i}.mlp.down"])
        state["position"] = at + 1
        x = F.rms_norm(x, (c.n_embd,), p["final_norm.gain"], c.norm_eps)
        return F.linear(x, p["embedding"])

    return step, state


def torch_step(model: str) -> dict[str, Any]:
    """torch eager."""
    step, state = torch_gpt(model)
    state["position"] = 0
    return greedy(step)


@cache
def rwkv_model(model: str, folder: str) -> Any:
    """The package rwkv's model of the weights in folder."""
    os.environ |= {"RWKV_V7_ON": "1", "RWKV_JIT_ON": "1", "RWKV_CUDA_ON": "0"}
    import torch  # noqa: PLC0415
    from rwkv.model import RWKV  # noqa: PLC0415

    path = Path(folder) / f"rwkv7-{model}"
    with np.load(path.with_suffix(".npz")) as tensors:
        table = {name: torch.from_numpy(tensors[name]) for name in tensors}
    torch.save(table, path.with_suffix(".pth"))
    return RWKV(model=str(path), strategy="cpu fp32")


def rwkv_step(model: str, folder: str) -> dict[str, Any]:
    """PyPI rwkv."""
    network, state = rwkv_model(model, folder), None

    def step(token: int) -> Any:
        nonlocal state
        logits, state = network.forward([token], state)
        return logits

    return greedy(step)


WHAT: dict[str, Callable[..., dict[str, Any]]] = {
    "ours step": ours_step,
    "ours prefill": ours_prefill,
    "ours batch": ours_batch,
    "torch": torch_step,
    "rwkv": rwkv_step,
}


def orders() -> Iterator[dict[str, str]]:
    """What standard input asks for."""
    for line in sys.stdin:
        yield json.loads(line)


def main() -> None:
    """Answers until the input ends; what a library prints does not get between the answers."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for order in orders():
        what = order.pop("what")
        try:
            answer = WHAT[what](**order)
        except ImportError as error:
            answer = {"missing": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
