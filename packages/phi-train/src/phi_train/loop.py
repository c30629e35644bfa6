"""The training run, step by step: data, model, updates, evaluation, checkpoints.

A run is a function of its config and its data: the same seed gives the same weights to the last
bit, and a run that was stopped, or killed, and resumed equals one that was not.

>>> from phi_train import TrainConfig, train
>>> result = train(TrainConfig(data="stories.txt", steps=100))  # doctest: +SKIP
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_model import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from phi_train.batches import make_batches
from phi_train.beginning import adopt, first_model, resumed_model
from phi_train.budget import Budget, Stopwatch, rate_factor
from phi_train.config import TrainConfig
from phi_train.corpus import with_stories
from phi_train.environment import arithmetic, changes, environment
from phi_train.errors import Diverged, RunError
from phi_train.evaluate import evaluate
from phi_train.guard import Guard, machine_guard
from phi_train.interrupt import StopRequest
from phi_train.learner import Learner
from phi_train.lock import RunLock
from phi_train.ngram import baselines
from phi_train.opening import (
    checkpoint_to_resume,
    finished_before,
    is_out_of_patience,
    open_folder,
)
from phi_train.progress import Progress, Quiet
from phi_train.result import TrainResult
from phi_train.run_data import open_run_data
from phi_train.run_folder import MetricsLog, RunFolder
from phi_train.samples import Sampler
from phi_train.tokens import TokenStream

__all__ = ["TrainResult", "train"]

Array = NDArray[Any]

KEPT = ("seed", "batches", "batch_size", "grad_accum", "seq_len", "tokenizer", "vocab_size")
COUNTED_TOKENS = 20_000_000  # for the n-gram baselines, from the start: counts take memory


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    guard: Guard | None = None,
) -> TrainResult:
    """Runs (or, with resume, goes on with) the run that `config` describes.

    With resume, a folder without a run is a new run, and a finished run is left as it is. guard
    takes the place of the one that `config` asks for.
    Raises a PhiTrainError for anything that is wrong with settings, data or folder; OSError when
    files cannot be written: what was saved before stays as it was.
    """
    progress = progress or Quiet()
    folder = open_folder(config, resume=resume)
    if guard is None and config.guard:
        guard = machine_guard(config)
    lock = RunLock(folder.lock)
    if folder.path.is_dir():
        lock.acquire()
    try:
        checkpoint = checkpoint_to_resume(folder, progress) if resume else None
        if (
            checkpoint is not None
            and (done := finished_before(config, folder, checkpoint)) is not None
        ):
            progress.say(f"{folder.path} is finished: all of its {done.step} steps are made")
            return done
        with np.errstate(all="ignore"):  # the loop itself looks for what is not finite
            run = _Run(config, folder, lock, checkpoint, progress, guard, resume=resume)
            try:
                return run.go()
            finally:
                run.close()
    finally:
        lock.release()


class _Run:
    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        lock: RunLock,
        checkpoint: Checkpoint | None,
        progress: Progress,
        guard: Guard | None,
        *,
        resume: bool,
    ) -> None:
        self.folder, self.progress, self.guard = folder, progress, guard
        source = checkpoint
        if config.init_from:
            source = checkpoint or load_checkpoint(config.init_from)
            config = adopt(config, source)
        self.config = config = self._completed(config)
        saved_tokenizer = source.tokenizer if source is not None else None
        data = open_run_data(config, saved_tokenizer, progress.say)
        self.train, self.valid = data.train, data.valid
        n = min(config.eval_tokens or self.valid.ids.size, self.valid.ids.size)
        self.slice = replace(self.valid, ids=self.valid.ids[:n], source_nats=None)
        self.train_checksum, self.slice_checksum = data.train.checksum, self.slice.checksum
        self.tokenizer = data.tokenizer.to_bytes()
        self.model = (
            resumed_model(config, checkpoint)
            if checkpoint is not None
            else first_model(config, data.tokenizer.n_vocab, source, progress.say)
        )
        self.batches = make_batches(
            config.batches,
            self.train,
            batch_size=config.batch_size * config.grad_accum,
            seq_len=config.seq_len,
            seed=config.seed,
        )
        self.learner = Learner(self.model, config)
        self.budget = Budget(config.total_steps(self.model.config), config.seconds)
        self.step = self.evaluated_at = self.since_best = 0
        self.best_loss = math.inf
        self.watch = Stopwatch()
        self.machine = arithmetic()
        if checkpoint is not None:
            self._restore(checkpoint)
        self._open(lock, resume=resume)
        self.sampler = Sampler(
            self.model,
            self.tokenizer,
            prompt=config.prompt,
            max_tokens=config.sample_tokens,
            seed=config.seed,
        )
        self._start_workers(checkpoint)  # last: they see everything that is there when they start

    def _completed(self, config: TrainConfig) -> TrainConfig:
        """The settings with what the command left open; a mistake in them is told now, before a
        tokenizer is learnt.
        """
        config.model_config(config.vocab_size)
        return replace(with_stories(config), out=str(self.folder.path))

    def _restore(self, checkpoint: Checkpoint) -> None:
        saved = checkpoint.metadata
        if saved.get("data_checksum") != self.train_checksum:
            raise RunError(
                f"{self.config.data} is not the text that {checkpoint.path} was trained on: "
                "put it back, or start a new run"
            )
        if (optimizer := saved.get("optimizer", "adamw")) != self.config.optimizer:
            raise RunError(
                f"{checkpoint.path} was trained with {optimizer}, not {self.config.optimizer}: a "
                "resumed run keeps its optimizer; leave it out, or start anew with --init-from"
            )
        for name, before in saved.get("kept", {}).items():
            if before != getattr(self.config, name, before):
                raise RunError(
                    f"{checkpoint.path} was trained with {name} {before!r}, not "
                    f"{getattr(self.config, name)!r}: a resumed run keeps it; leave it out, or "
                    "start anew with --init-from"
                )
        self.step = checkpoint.step
        self._restore_best(saved)
        self.watch = Stopwatch(float(saved.get("elapsed", 0.0)))
        self.learner.restore(checkpoint.tensors, step=self.step)
        self.progress.say(f"resuming {self.folder.path} after step {self.step}")
        for change in changes(saved.get("machine", {}), self.machine):
            self.progress.say(f"warning: another machine: {change}; the last bits may differ")

    def _restore_best(self, saved: dict[str, Any]) -> None:
        """The best so far, if it was measured on the same text and its weights are still there."""
        if saved.get("measured_on", self.slice_checksum) != self.slice_checksum:
            self.progress.say("warning: other held-out text than before: the best begins anew")
            return
        self.evaluated_at = int(saved.get("evaluated_at", 0))
        best = float(saved["best_loss"])
        try:
            if math.isfinite(best):
                load_checkpoint(self.folder.best)
        except (CheckpointError, OSError):
            self.progress.say(f"warning: {self.folder.best} is gone or damaged: it is made anew")
            return
        self.best_loss, self.since_best = best, int(saved.get("since_best", 0))

    def _open(self, lock: RunLock, *, resume: bool) -> None:
        """The folder with all that describes the run; config.toml last: it marks a run."""
        self.folder.create()
        lock.acquire()
        if not resume:
            self.folder.must_be_unused()  # a second time: another run may have begun meanwhile
        self.folder.sweep()
        self.folder.write(self.folder.tokenizer, self.tokenizer)
        if self.step == 0:
            facts = json.dumps(environment(), indent=1) + "\n"
            self.folder.write(self.folder.environment, facts.encode())
        self.folder.write(self.folder.config, self.config.to_toml().encode())
        self.metrics = MetricsLog(
            self.folder.metrics, keep_steps=self.step, evaluated_at=self.evaluated_at
        )

    def _start_workers(self, checkpoint: Checkpoint | None) -> None:
        """As many as the run began with: their number is part of what decides the last bit."""
        workers = self.config.workers
        wanted: int | str = workers if workers == "auto" else int(workers)
        if checkpoint is not None and "workers" in checkpoint.metadata:
            wanted = int(checkpoint.metadata["workers"])
        size, runner = self.learner.start_workers(wanted)
        self.progress.say(f"workers: {size} ({runner})")

    def close(self) -> None:
        self.progress.stop()
        self.model.stop_workers()
        self.metrics.close()

    # 1. the loop

    def go(self) -> TrainResult:
        self.progress.start(
            first_step=self.step, total_steps=self.budget.steps, share=self._share()
        )
        if not self._is_over():
            self.learner.time_forward(*self.batches(self.step))
        self.watch.start()
        with StopRequest() as stop:
            while not (self._is_over() or stop.requested):
                self._update()
                self._look()
                if self._is_due(self.config.checkpoint_every) and not self._is_over():
                    self._save_checkpoint()
                self._mind_the_machine(stop)
            self.progress.stop()
            self.watch.pause()
            if self._is_over() and self.evaluated_at != self.step:
                self._evaluate_slice()
            self._save_checkpoint()
            if stop.requested or not self._is_over():
                return TrainResult(self.folder, self.step, False, None)
        if is_out_of_patience(self.config, self.since_best):
            n = self.config.patience
            self.progress.say(
                f"step {self.step}: ended early: {n} evaluations without a better one than "
                f"{self.best_loss:.4f}"
            )
        return self._finish()

    def _is_over(self) -> bool:
        if self.budget.is_used_up(self.step, self.watch.elapsed):
            return True
        return is_out_of_patience(self.config, self.since_best)

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _share(self) -> float:
        return self.budget.share(self.step, self.watch.elapsed)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.progress.spent(part, time.perf_counter() - started)

    # 2. an update

    def _update(self) -> None:
        started = time.perf_counter()
        ids, targets = self.batches(self.step)
        data_seconds = time.perf_counter() - started
        resets = None if self.learner.carried is None else self.batches.resets(self.step)
        loss, norm = self.learner.loss_and_grad(ids, targets, resets)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise self._diverged(loss)
        factor = rate_factor(
            self.config, self.learner.schedule, self.budget, self.step, self.watch.elapsed
        )
        rate = self.learner.learning_rate * factor
        self.step += 1
        watch = self.learner.watch() if self._is_due(self.config.groups_every) else None
        self.learner.update(self.step, rate=rate, norm=norm)
        tokens = self.config.tokens_per_step
        measured = {"data": data_seconds, **self.learner.seconds}
        self.metrics.write(
            step=self.step,
            loss=loss,
            learning_rate=rate,
            grad_norm=norm,
            tokens=self.step * tokens,
            seconds=round(time.perf_counter() - started, 6),
            **{part: round(seconds, 6) for part, seconds in measured.items()},
        )
        if watch is not None:
            self.metrics.write(step=self.step, groups=watch.measured())
        parts = {"data": data_seconds, **self.learner.parts}
        self.progress.step(self.step, loss=loss, tokens=tokens, share=self._share(), parts=parts)

    def _diverged(self, loss: float) -> Diverged:
        """The error to raise; the log tells of it, too."""
        error = Diverged(self._what_diverged(loss), self._what_is_kept())
        self.metrics.write(step=self.step, diverged=str(error))
        return error

    def _what_diverged(self, loss: float) -> str:
        faulty = self.learner.model.faulty_gradient()
        where = f"the gradient of {faulty}" if faulty else f"the loss ({loss})"
        return (
            f"{where} is no longer finite at step {self.step + 1}: lower --learning-rate "
            f"({self.learner.learning_rate:g} now)"
        )

    def _what_is_kept(self) -> str:
        if self.folder.last.exists():
            return f"{self.folder.last} is from before that"
        return "no checkpoint was saved before that"

    # 3. evaluation

    def _look(self) -> None:
        """How good the model is by now, in numbers and in words."""
        if self._is_due(self.config.eval_every):
            with self._timed("evaluation"):
                self._evaluate_slice()
        if self._is_due(self.config.sample_every):
            with self._timed("samples"), self.learner.evaluation_view():
                self.metrics.write(step=self.step, prompt=self.config.prompt, sample=self.sampler())

    def _evaluate_slice(self) -> None:
        """The start of the validation stream, often; best.phi is the best by this measure."""
        n = self.slice.ids.size
        with self.learner.evaluation_view():
            result = evaluate(self.model, self.slice)
            if not math.isfinite(result.loss):
                raise self._diverged(result.loss)
            self.metrics.write(step=self.step, valid_loss=result.loss, valid_tokens=n)
            self.progress.say(f"step {self.step}: held-out loss {result.loss:.4f} on {n:,} tokens")
            self.evaluated_at, self.since_best = self.step, self.since_best + 1
            if result.loss < self.best_loss:
                self.best_loss, self.since_best = result.loss, 0
                self._save(self.folder.best, {})

    def _finish(self) -> TrainResult:
        with self.learner.evaluation_view():
            result = evaluate(self.model, self.valid)
        levels = self._baselines() if self.config.baselines else {}
        self.metrics.write(
            step=self.step,
            final_loss=result.loss,
            bits_per_byte=result.bits_per_byte,
            valid_tokens=result.tokens,
            valid_documents=result.documents,
            text_bytes=result.text_bytes,
            floor=result.floor,
            gap=result.gap,
            gap_error=result.gap_error,
            baselines=levels,
        )
        self.metrics.sync()
        return TrainResult(self.folder, self.step, True, result, levels)

    def _baselines(self) -> dict[str, float]:
        counted: TokenStream = self.train
        if counted.ids.size > COUNTED_TOKENS:
            counted = replace(counted, ids=counted.ids[:COUNTED_TOKENS])
            self.progress.say(f"baselines: counted on the first {COUNTED_TOKENS:,} tokens")
        return baselines(
            counted,
            self.valid,
            vocab_size=self.model.config.vocab_size,
            order=self.config.baseline_order,
        )

    # 4. what a crash must not take

    def _save_checkpoint(self) -> None:
        """last.phi and a numbered copy, either complete, with all that resuming needs."""
        with self._timed("saving"):
            if not self.learner.can_go_on(*self.batches(self.step)):
                raise self._diverged(math.nan)
            self.metrics.sync()
            with self.learner.evaluation_view() as state:
                self._save(self.folder.checkpoint(self.step), state)
            self.folder.publish_last(self.folder.checkpoint(self.step))
            self.folder.drop_checkpoints(keep=self.config.keep, step=self.step)

    def _save(self, path: Path, tensors: dict[str, Array]) -> None:
        metadata = {
            "best_loss": self.best_loss,
            "since_best": self.since_best,
            "evaluated_at": self.evaluated_at,
            "data_checksum": self.train_checksum,
            "workers": self.model.workers,
            "optimizer": self.config.optimizer,
            "kept": {name: getattr(self.config, name) for name in KEPT},
            "measured_on": self.slice_checksum,
            "machine": self.machine,
        }
        if self.budget.seconds:  # else equal runs would differ in it
            metadata["elapsed"] = self.watch.elapsed
        save_checkpoint(
            path,
            self.model,
            step=self.step,
            tokenizer=self.tokenizer,
            metadata=metadata,
            tensors=tensors,
        )

    def _mind_the_machine(self, stop: StopRequest) -> None:
        """Waits, everything saved, while the guard finds the machine in trouble."""
        trouble = self.guard.trouble() if self.guard is not None else ""
        if self.guard is None or not trouble:
            return
        self.watch.pause()
        self._save_checkpoint()
        self.progress.say(f"step {self.step}: paused, {trouble}; goes on by itself")
        self.guard.wait(stopped=lambda: stop.requested)
        self.progress.say(f"step {self.step}: going on")
        self.watch.start()
