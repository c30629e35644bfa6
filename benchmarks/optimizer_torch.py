"""The peers' optimisers for the benchmark of their speed, each on parameters of its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch

RATE = 1e-4


def torch_updates(shape: tuple[int, int, int]) -> dict[str, Callable[[], Any]]:
    """'optimiser peer' -> a call that makes one update; references only where installed."""
    count, rows, columns = shape
    size = count * rows * columns
    made: dict[str, torch.optim.Optimizer] = {}
    adamw = {"lr": RATE, "betas": (0.9, 0.95), "weight_decay": 0.1}
    sgd = {"lr": RATE, "momentum": 0.9}
    for how in ("fused", "foreach"):
        made[f"adamw torch {how}"] = torch.optim.AdamW(vector(size), **adamw, **{how: True})
        made[f"sgd torch {how}"] = torch.optim.SGD(vector(size), **sgd, **{how: True})
    matrices = [vector(rows, columns)[0] for _ in range(count)]
    made["muon reference"] = torch.optim.Muon(matrices, lr=RATE, weight_decay=0.1)
    if lion := found("lion_pytorch"):
        made["lion reference"] = lion.Lion(vector(size), lr=RATE, weight_decay=0.1)
    if free := found("schedulefree"):
        made["schedule-free reference"] = free.AdamWScheduleFree(
            vector(size), lr=RATE, weight_decay=0.1, foreach=True
        )
        made["schedule-free reference"].train()  # type: ignore[attr-defined]
    return {name: optimizer.step for name, optimizer in made.items()}


def vector(*shape: int) -> list[torch.nn.Parameter]:
    """One parameter with its gradient."""
    parameter = torch.nn.Parameter(torch.randn(*shape))
    parameter.grad = torch.randn(*shape)
    return [parameter]


def found(name: str) -> Any:
    """The module, or None."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
