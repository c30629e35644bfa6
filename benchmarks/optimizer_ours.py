"""Our optimisers for the benchmark of their speed: updates alone, and beside a training step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from phi_model import ModelConfig, build_model, shared_zeros
from phi_model.parameters import FlatTable
from phi_model.team import make_team
from phi_optim import OPTIMIZERS, Optimizer, clip_scale, make_optimizer
from phi_optim.adamw import adamw_update
from phi_optim.memory import aligned_empty, aligned_zeros
from phi_optim.segments import block_views

RATE = 1e-4
IN_CACHE = 1 << 15  # elements: five vectors of them are 640 KiB


def tables(shape: tuple[int, int, int]) -> tuple[FlatTable, FlatTable]:
    """(values, gradients) in memory that workers share."""
    count, rows, columns = shape
    shapes = {f"layer.{i}": (rows, columns) for i in range(count)}
    values = FlatTable(shapes, dtype=np.float32, allocate=shared_zeros)
    gradients = values.like()
    rng = np.random.default_rng(0)
    for table in (values, gradients):
        table.flat[...] = rng.standard_normal(table.flat.size, np.float32)
    return values, gradients


def updates(shape: tuple[int, int, int], runners: Sequence[str]) -> dict[str, Callable[[], None]]:
    """'optimiser runner' -> a call that makes one update."""
    values, gradients = tables(shape)
    calls = {}
    for runner in sorted(runners, key=lambda runner: runner != "processes"):  # forks come first
        workers = 1 if runner == "inline" else 2
        optimizers = {
            name: make_optimizer(name, values, allocate=shared_zeros) for name in OPTIMIZERS
        }
        jobs = {name: job(each, gradients, workers) for name, each in optimizers.items()}
        team = make_team(runner, workers, jobs | {"nothing": nothing})
        calls[f"nothing {runner}"] = functools.partial(team.run, "nothing")
        for name, optimizer in optimizers.items():
            calls[f"{name} {runner}"] = counting(optimizer, team.run, name)
            # once now: a team that first runs after torch was imported would look after torch's
            # own BLAS at every call as well
            calls[f"{name} {runner}"]()
    return calls


def arithmetic(parameters: int) -> Callable[[], None]:
    """AdamW's operations for so many parameters, all of them on one block that stays in cache."""
    rng = np.random.default_rng(0)
    arrays = [aligned_zeros(IN_CACHE, np.float32) for _ in range(4)]
    for array in arrays[:2]:
        array[...] = rng.standard_normal(IN_CACHE, np.float32)
    views = block_views(arrays, 0, IN_CACHE, aligned_empty((1, IN_CACHE), np.float32))
    turns = views * (parameters // IN_CACHE)
    return lambda: adamw_update(turns, 1000, RATE, 1 - RATE * 0.1, 1.0, betas=(0.9, 0.95), eps=1e-8)


def nothing(member: int) -> None:
    """A job without work: what it takes is the time to wake the workers and to hear from them."""


def job(optimizer: Optimizer, gradients: FlatTable, shares: int) -> Callable[..., None]:
    """One worker's part of an update."""

    def update(member: int, step: float) -> None:
        optimizer.update(gradients, step=int(step), learning_rate=RATE, share=member, shares=shares)

    return update


def counting(optimizer: Optimizer, run: Callable[..., None], name: str) -> Callable[[], None]:
    """The next update, by all workers."""

    def call() -> None:
        optimizer.steps += 1
        run(name, optimizer.steps)

    return call


class OurSteps:
    """A training step of two workers as `phi-train run` makes it, and either update alone."""

    def __init__(self, batch: int, length: int) -> None:
        config = ModelConfig(vocab_size=1024, n_embd=128, n_layer=4, n_head=4, seq_len=length)
        self.model = build_model(config, seed=0)
        rows = np.random.default_rng(0).integers(0, 1024, (batch, length + 1))
        self.ids, self.targets = rows[:, :-1], rows[:, 1:]
        self.optimizers = {
            name: make_optimizer(name, self.model.parameters, allocate=shared_zeros)
            for name in ("adamw", "muon")
        }
        jobs = {name: self._job(optimizer) for name, optimizer in self.optimizers.items()}
        self.model.start_workers(2, batch_size=batch, seq_len=length, jobs=jobs)

    def _job(self, optimizer: Optimizer) -> Callable[..., None]:
        def update(member: int, step: float, scale: float) -> None:
            optimizer.update(
                self.model.gradients,
                step=int(step),
                learning_rate=RATE,
                scale=scale,
                share=member,
                shares=2,
            )

        return update

    def _update(self, name: str) -> None:
        optimizer = self.optimizers[name]
        optimizer.steps += 1
        self.model.run_job(name, optimizer.steps, clip_scale(self.model.gradient_norm, 1.0))

    def step(self) -> None:
        """Forward, backward, clipping, AdamW."""
        self.model.loss_and_grad(self.ids, self.targets)
        self._update("adamw")

    def peers(self) -> dict[str, Callable[[], None]]:
        """The step, and the updates alone."""
        return {
            "step": self.step,
            "adamw": lambda: self._update("adamw"),
            "muon": lambda: self._update("muon"),
        }
