"""A nanoGPT-style training loop in PyTorch: the same model, first weights, batches and schedule."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from training_step_torch import TorchGPT

from phi_model import build_model
from phi_optim.make import CLASSES
from phi_train import TrainConfig
from phi_train.batches import make_batches
from phi_train.budget import Budget, rate_factor
from phi_train.shards import PreparedData
from phi_train.tokens import windows

__all__ = ["train_torch"]

THREADS = 2
WARM_UP = 3  # steps that compile, before the clock starts; the weights are then set back
AT_ONCE = 2048  # tokens of an evaluation


def train_torch(
    config: TrainConfig, data: PreparedData, *, level: float, compiled: bool
) -> dict[str, Any]:
    """Steps, clock and held-out loss at each evaluation, up to one at the level; the clock stands
    still meanwhile.
    """
    torch.set_num_threads(THREADS)
    shape = config.model_config(data.tokenizer.n_vocab)
    model = TorchGPT((shape.n_embd, shape.n_layer, shape.n_head, config.batch_size, config.seq_len))
    call = torch.compile(model) if compiled else model
    budget = Budget(config.steps)
    schedule = config.schedule or CLASSES[config.optimizer].schedule
    batches = make_batches(
        "random",
        data.train,
        batch_size=config.batch_size,
        seq_len=config.seq_len,
        seed=config.seed,
    )
    optimizers = make_optimizers(model, config)
    for step in range(WARM_UP):
        one_step(model, call, optimizers, *batches(step), rate=0.0)
    begin_with_ours(model, config, data.tokenizer.n_vocab)
    optimizers = make_optimizers(model, config)
    seconds, looks = 0.0, []
    for step in range(config.steps):
        started = time.perf_counter()
        rate = config.learning_rate * rate_factor(config, schedule, budget, step, 0.0)
        one_step(model, call, optimizers, *batches(step), rate=rate)
        seconds += time.perf_counter() - started
        if (step + 1) % config.eval_every == 0 or step + 1 == config.steps:
            with averaged(optimizers):
                looks.append((step + 1, seconds, held_out_loss(model, config, data)))
            if looks[-1][2] <= level:
                break
    return {"looks": looks, "seconds": seconds}


@contextmanager
def averaged(optimizers: list[torch.optim.Optimizer]) -> Iterator[None]:
    """Inside, the weights are those to evaluate."""
    averaging = [optimizer for optimizer in optimizers if hasattr(optimizer, "eval")]
    for optimizer in averaging:
        optimizer.eval()
    yield
    for optimizer in averaging:
        optimizer.train()


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Fused AdamW; Muon for the hidden matrices and fused AdamW for the rest; or Schedule-Free."""
    decay = 0.1 if config.weight_decay < 0 else config.weight_decay
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    gains = [p for p in model.parameters() if p.ndim < 2]
    found: list[torch.optim.Optimizer] = []
    if config.optimizer == "muon":
        hidden = [p for p in model.layers.parameters() if p.ndim >= 2]
        found.append(torch.optim.Muon(hidden, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
        inside = {id(p) for p in hidden}
        matrices = [p for p in matrices if id(p) not in inside]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": gains, "weight_decay": 0.0}]
    if config.optimizer == "schedule-free":
        from schedulefree import AdamWScheduleFree  # noqa: PLC0415  (its authors' package)

        averaging = AdamWScheduleFree(groups, lr=1e-3, betas=(0.9, 0.999), foreach=True)
        averaging.train()
        return [averaging]
    return [*found, torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)]


def begin_with_ours(model: nn.Module, config: TrainConfig, vocab_size: int) -> None:
    """Our first weights of the same seed; the largest difference of two losses is checked."""
    ours = build_model(config.model_config(vocab_size), seed=config.seed)
    theirs = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in ours.parameters.items():
            theirs[their_name(name)].copy_(torch.from_numpy(np.array(value)))
    ids = np.arange(config.seq_len + 1)[None]
    with torch.no_grad():
        difference = ours.loss(ids[:, :-1], ids[:, 1:]) - model(*tensors(ids[:, :-1], ids[:, 1:]))
    if abs(float(difference)) > 1e-4:
        raise RuntimeError(f"the two models are not the same: their losses differ by {difference}")


def their_name(name: str) -> str:
    """Our name of a parameter as TorchGPT calls it."""
    renamed = {"embedding": "embedding.weight", "final_norm.gain": "norm.weight"}
    if name in renamed:
        return renamed[name]
    layer = name.replace("attention_norm.gain", "attention_norm.weight")
    layer = layer.replace("mlp_norm.gain", "mlp_norm.weight")
    for block, part in (("attention", "qkv"), ("attention", "out"), ("mlp", "gate_up")):
        layer = layer.replace(f"{block}.{part}", f"{part}.weight")
    return layer.replace("mlp.down", "down.weight")


def tensors(ids: np.ndarray, targets: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch for torch."""
    return (
        torch.from_numpy(np.ascontiguousarray(ids, np.int64)),
        torch.from_numpy(np.ascontiguousarray(targets, np.int64)),
    )


def one_step(
    model: nn.Module,
    call: Any,
    optimizers: list[torch.optim.Optimizer],
    ids: np.ndarray,
    targets: np.ndarray,
    *,
    rate: float,
) -> None:
    """Forward, backward, clipping, update."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
    call(*tensors(ids, targets)).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()


def held_out_loss(model: nn.Module, config: TrainConfig, data: PreparedData) -> float:
    """Nats a token on the start of the validation stream, whole windows, always eager."""
    n = config.eval_tokens
    contexts = data.valid.contexts[:n].astype(np.int64)
    targets = data.valid.ids[:n].astype(np.int64)
    length, total = config.seq_len, 0.0
    with torch.no_grad():
        for start, rows, columns in windows(length, n, max(1, AT_ONCE // length)):
            part = slice(start, start + rows * columns)
            batch = tensors(
                contexts[part].reshape(rows, columns), targets[part].reshape(rows, columns)
            )
            total += float(model(*batch)) * rows * columns
    return total / n
