"""What every kind of model shares: parameters, gradients, and workers that split a batch.

A kind of model says what its parameters are, and what forward and backward do with some rows.
Knows token ids, not text; computes gradients, not updates.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from phi_model.batch import SharedBatch, as_ids, same_shape, token_factors
from phi_model.config import ModelConfig
from phi_model.cross_entropy import cross_entropy
from phi_model.errors import ConfigError, NotFiniteError
from phi_model.memory import shared_zeros
from phi_model.parameters import FlatTable
from phi_model.team import InlineTeam, Job, Team, can_fork, make_team

__all__ = ["LanguageModel", "weighted_sum"]

Array = NDArray[Any]

MAX_AUTO_WORKERS = 4  # phones have slow cores beside their fast ones
SMALL_STEP = 2e8  # operations: below this a step is over before workers pay
REDUCE_BLOCK = 32 * 1024  # elements added at once: they stay in cache


class LanguageModel(ABC):
    """Parameters, gradients, and workers.

    `parameters` and `gradients` map names to views of one flat buffer each.
    dtype is float32, or float64 for checking gradients. One worker computes, with as many BLAS
    threads as numpy has, until start_workers; work that is split gives the same result however
    its workers run, and results that differ in rounding only for another number of them.
    """

    kind: str  # of ModelConfig
    difference_step: float | None = None  # for check_gradients, where its own is too large

    def __init__(
        self, config: ModelConfig, *, seed: int = 0, dtype: DTypeLike = np.float32
    ) -> None:
        if config.kind != self.kind:
            raise ConfigError(
                f"the config is of a {config.kind}; build_model finds the right class"
            )
        self.config = config
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise ConfigError(f"dtype is {self.dtype}; a model computes in float32 or float64")
        shapes = self._parameter_shapes()
        self.parameters = FlatTable(shapes, dtype=self.dtype, allocate=shared_zeros)
        self._initialise(seed)
        self.passes = 0  # how often loss_and_grad was called
        self._worker_gradients: list[FlatTable] = []
        self._square_sums = np.zeros(1)
        self._workspaces: dict[tuple[int, bool], Any] = {}
        self._batch = SharedBatch(0, self.dtype)
        self._extra_jobs: dict[str, Job] = {}
        self._size, self._runner = 1, "inline"  # set before a team is made: its children look
        self._team: Team = InlineTeam(1, self._jobs)

    # what a kind of model is

    @abstractmethod
    def _parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter."""

    @abstractmethod
    def _initialise(self, seed: int) -> None:
        """Gives the parameters their first values."""

    @abstractmethod
    def _new_workspace(self, batch: int, length: int, *, keep: bool) -> Any:
        """Memory for passes over [batch, length]; `keep` for those with a backward."""

    @abstractmethod
    def _forward_rows(self, ws: Any, ids: Array, first: int, *numbers: float) -> Any:
        """Fills ws.logits for ids [b, T], rows of the batch from `first` on; numbers: the job's.

        What it returns reaches _backward_rows.
        """

    @abstractmethod
    def _backward_rows(
        self, ws: Any, g: FlatTable, ids: Array, targets: Array, factors: Array, seen: Any
    ) -> None:
        """Writes these rows' share of every gradient into g, after _forward_rows gave `seen`."""

    def decays(self, name: str) -> bool:
        """Whether weight decay acts on a parameter: on matrices, as a rule."""
        return self.parameters[name].ndim >= 2

    # passes

    def loss(self, ids: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None) -> float:
        """Mean cross-entropy in nats a token; see loss_and_grad for weights."""
        return weighted_sum(-self.token_log_probs(ids, targets), weights)

    def token_log_probs(self, ids: ArrayLike, targets: ArrayLike) -> Array:
        """log p(target) [B, T] in nats for ids, targets [B, T]."""
        return self._run_losses(*self._checked(ids, targets))

    def logits(self, ids: ArrayLike) -> Array:
        """Logits [B, T, V] for ids [B, T], a copy."""
        ids = as_ids("ids", ids, self.config.vocab_size)
        ws = self._workspace(0, *ids.shape, keep=False)
        self._forward_rows(ws, ids, 0)
        return self._copy_of_logits(ws)

    def loss_and_grad(
        self, ids: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None
    ) -> float:
        """The loss in nats a token, its gradient left in `gradients` (overwritten).

        ids, targets: whole numbers [B, T]. weights [B, T], any real numbers:
        loss = sum(weights * losses) / (number of weights that are not 0), so a mask of zeros
        and ones gives the mean over the ones, and the gradient is linear in the weights.
        Raises ConfigError for a batch that does not fit, NotFiniteError for a gradient that is
        NaN or infinite, WorkerError when a worker dies.
        """
        ids, targets = self._checked(ids, targets)
        return self._run_backward(ids, targets, token_factors(ids.shape, weights))

    # gradients

    @property
    def gradients(self) -> FlatTable:
        """Gradients of the last loss_and_grad; zeros before the first."""
        self._need_gradients()
        return self._worker_gradients[0]

    @property
    def gradient_norm(self) -> float:
        """Euclidean norm of the last loss_and_grad's gradients, all together."""
        return math.sqrt(float(self._square_sums.sum()))

    def _finish_gradients(self, rows: int) -> None:
        """Adds up what the workers found. Raises NotFiniteError for a NaN or an infinity in it."""
        self.passes += 1
        self._team.run("reduce", rows)
        if not math.isfinite(self.gradient_norm):
            name = self.faulty_gradient()
            if name:
                raise NotFiniteError(
                    f"the gradient of {name} holds a NaN or an infinity at step {self.passes} of "
                    "this model: the weights, or the learning rate that led to them, are too large"
                )

    def faulty_gradient(self) -> str:
        """The first parameter whose gradient is not finite; empty when all are."""
        faulty = (n for n, gradient in self.gradients.items() if not np.isfinite(gradient).all())
        return next(faulty, "")

    # workers

    def start_workers(
        self,
        workers: int | str = "auto",
        *,
        batch_size: int,
        seq_len: int,
        max_tokens: int = 0,
        runner: str = "auto",
        jobs: Mapping[str, Job] | None = None,
    ) -> tuple[int, str]:
        """Splits the rows of every batch among workers; returns their number and kind.

        "auto" chooses by the size of a step of batch_size rows of seq_len tokens and by what the
        system can do. max_tokens: of the largest batch to come, when that is not the training
        batch; a larger one still works, but starts the workers anew.
        runner: inline, threads, processes, or auto. jobs: further callables, name ->
        job(member, *numbers), that run_job then runs on all workers at once; what they write
        must be in shared memory (phi_model.shared_zeros).
        """
        self.stop_workers()
        size = self._auto_size(batch_size, seq_len) if workers == "auto" else workers
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ConfigError(f"workers is {workers!r}; it must be 'auto', or 1 or more")
        if runner == "auto":
            runner = "processes" if can_fork() else "threads"
        self._extra_jobs = dict(jobs or {})
        self._size, self._runner = size, (runner if size > 1 else "inline")
        self._square_sums = shared_zeros(size, np.float64)
        self._worker_gradients = []
        self._need_gradients(size)
        self._batch = SharedBatch(max(batch_size * seq_len, max_tokens), self.dtype)
        self._team = make_team(self._runner, size, self._jobs)
        return size, self._runner

    def stop_workers(self) -> None:
        """Back to one worker; does nothing when there is only one."""
        self._team.close()
        self._extra_jobs = {}
        self._size, self._runner = 1, "inline"
        del self._worker_gradients[1:]
        self._square_sums = np.zeros(1)
        self._workspaces = {key: ws for key, ws in self._workspaces.items() if key[0] == 0}
        self._team = InlineTeam(1, self._jobs)

    @property
    def workers(self) -> int:
        """How many workers share a batch."""
        return self._size

    def run_job(self, name: str, *numbers: float) -> None:
        """Runs a job given to start_workers on every worker."""
        self._team.run(name, *numbers)

    def _auto_size(self, batch_size: int, seq_len: int) -> int:
        work = self.config.flops_per_token(seq_len) * batch_size * seq_len
        if work < SMALL_STEP:
            return 1
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return max(1, min(cores or 1, batch_size, MAX_AUTO_WORKERS))

    @property
    def _jobs(self) -> dict[str, Job]:
        own: dict[str, Job] = {
            "losses": self._losses,
            "backward": self._backward,
            "reduce": self._reduce,
        }
        return own | self._extra_jobs

    # jobs: what each worker does with its rows

    def _run_losses(self, ids: Array, targets: Array, *numbers: float) -> Array:
        """log p(target) [B, T]; numbers go on to _forward_rows."""
        self._lay_out(ids, targets)
        self._team.run("losses", *ids.shape, *numbers)
        return -self._batch.rows(0, *ids.shape)[3]

    def _run_backward(self, ids: Array, targets: Array, factors: Array, *numbers: float) -> float:
        """The loss, its gradient left in `gradients`; numbers go on to _forward_rows."""
        self._need_gradients()
        self._lay_out(ids, targets, factors)
        self._team.run("backward", *ids.shape, *numbers)
        self._finish_gradients(ids.shape[0])
        losses = self._batch.rows(0, *ids.shape)[3]
        return float(np.vdot(losses.astype(np.float64), factors))

    def _losses(self, member: int, batch: float, length: float, *numbers: float) -> None:
        """A worker's rows forward."""
        first, end = self._share(member, batch)
        if first == end:
            return
        ids, targets, _, losses = self._batch.rows(first, end, int(length))
        ws = self._workspace(member, *ids.shape, keep=False)
        self._forward_rows(ws, ids, first, *numbers)
        losses[...] = token_losses(ws, targets)

    def _backward(self, member: int, batch: float, length: float, *numbers: float) -> None:
        """A worker's rows forward and backward, into its own gradients."""
        first, end = self._share(member, batch)
        if first == end:
            return
        ids, targets, factors, losses = self._batch.rows(first, end, int(length))
        ws = self._workspace(member, *ids.shape, keep=True)
        seen = self._forward_rows(ws, ids, first, *numbers)
        losses[...] = token_losses(ws, targets)
        self._backward_rows(ws, self._worker_gradients[member], ids, targets, factors, seen)

    def _share(self, member: int, batch: float) -> tuple[int, int]:
        """First and end row of a worker's part of the batch; empty for some when rows are few."""
        rows, size = int(batch), self._size
        return rows * member // size, rows * (member + 1) // size

    def _reduce(self, member: int, batch: float) -> None:
        """Adds the workers' gradients, in their order, on this worker's stretch of the buffer.

        A worker without rows has nothing to add; the last one always has some.
        """
        size = self._size
        busy = [m for m in range(size) if range(*self._share(m, batch))]
        flats = [self._worker_gradients[m].flat for m in busy]
        total = self._worker_gradients[0].flat
        first, end = stretch(total.size, member, size)
        square_sum = 0.0
        for start in range(first, end, REDUCE_BLOCK):
            part = slice(start, min(start + REDUCE_BLOCK, end))
            if busy[0] != 0:
                total[part] = flats[0][part]
            for flat in flats[1:]:
                total[part] += flat[part]
            square_sum += float(np.dot(total[part], total[part]))
        self._square_sums[member] = square_sum

    # what the jobs stand on

    def _checked(self, ids: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
        ids = as_ids("ids", ids, self.config.vocab_size)
        targets = as_ids("targets", targets, self.config.vocab_size)
        same_shape(ids, targets)
        return ids, targets

    def _lay_out(self, ids: Array, targets: Array, factors: Array | None = None) -> None:
        """Puts a batch where the workers look, making more room (and new workers) if need be."""
        if ids.size > self._batch.capacity:
            self._team.close()
            self._batch = SharedBatch(ids.size, self.dtype)
            self._team = make_team(self._runner, self._size, self._jobs)
        self._batch.put(ids, targets, factors)

    def _copy_of_logits(self, ws: Any) -> Array:
        """Logits [B, T, V] out of a workspace."""
        logits: Array = ws.logits.T.reshape(ws.batch, ws.length, self.config.vocab_size).copy()
        return logits

    def _need_gradients(self, size: int = 1) -> None:
        while len(self._worker_gradients) < size:
            self._worker_gradients.append(self.parameters.like())

    def _workspace(self, member: int, batch: int, length: int, *, keep: bool) -> Any:
        """A worker's memory for training or for everything else, renewed when shapes change."""
        ws = self._workspaces.get((member, keep))
        if ws is None or (ws.batch, ws.length) != (batch, length):
            self._workspaces.pop((member, keep), None)
            ws = self._new_workspace(batch, length, keep=keep)
            self._workspaces[member, keep] = ws
        return ws


def token_losses(ws: Any, targets: Array) -> Array:
    """Losses [B, T] in nats after a forward pass; the logits are used up."""
    return cross_entropy(ws.logits, targets.ravel(), total=ws.total).reshape(targets.shape)


def weighted_sum(losses: Array, weights: ArrayLike | None) -> float:
    """The loss of a batch from those of its tokens [B, T]; see LanguageModel.loss_and_grad."""
    return float((losses * token_factors(losses.shape, weights)).sum(dtype=np.float64))


def stretch(size: int, member: int, members: int) -> tuple[int, int]:
    """First and end element of a member's part of a buffer, on cache lines."""
    line = 16
    lines = -(-size // line)
    return min(size, lines * member // members * line), min(
        size, lines * (member + 1) // members * line
    )
