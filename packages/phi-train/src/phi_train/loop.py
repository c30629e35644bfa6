"""The training run, step by step: data, model, optimiser, evaluation, checkpoints.

A run is a function of its config and its data: the same seed gives the same weights to the last
bit, and a run that was stopped and resumed equals one that was not.

>>> from phi_train import TrainConfig, train
>>> result = train(TrainConfig(data="stories.txt", steps=100))  # doctest: +SKIP
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_model import (
    GPT,
    Checkpoint,
    build_model,
    load_checkpoint,
    save_checkpoint,
    shared_zeros,
)
from phi_optim import AdamW, clip_scale, grad_norm, schedules
from phi_tokenizer import Tokenizer
from phi_train.batches import RandomWindows
from phi_train.config import TrainConfig, default_learning_rate
from phi_train.corpus import BUILTIN, open_corpus, stories_for
from phi_train.documents import END_OF_TEXT
from phi_train.errors import ConfigError, Diverged, RunError
from phi_train.evaluate import TOKENS_AT_ONCE, Evaluation, evaluate
from phi_train.interrupt import StopRequest
from phi_train.ngram import baselines
from phi_train.progress import Progress, Quiet
from phi_train.run_folder import MetricsLog, RunFolder
from phi_train.tokens import TokenStream, encode_documents

__all__ = ["TrainResult", "train"]

Array = NDArray[Any]

OPTIMIZER = "optimizer/"  # prefix of its tensors in a checkpoint


@dataclass(frozen=True)
class TrainResult:
    """What a run came to."""

    folder: RunFolder
    step: int
    finished: bool  # False when it was stopped and can be resumed
    evaluation: Evaluation | None  # of the last weights, on the whole validation stream
    baselines: dict[str, float] = field(default_factory=dict)  # nats a token


def train(
    config: TrainConfig, *, resume: bool = False, progress: Progress | None = None
) -> TrainResult:
    """Runs (or, with resume, goes on with) the run that `config` describes.

    Raises a PhiTrainError for anything that is wrong with settings, data or folder; OSError when
    files cannot be written: what was saved before stays as it was.
    """
    with np.errstate(all="ignore"):  # the loop itself looks for what is not finite
        run = _Run(config, progress or Quiet(), resume=resume)
        try:
            return run.go()
        finally:
            run.close()


class _Run:
    def __init__(self, config: TrainConfig, progress: Progress, *, resume: bool) -> None:
        self.progress = progress
        self.folder, checkpoint = _open_folder(config, resume=resume)
        if config.data == BUILTIN and not config.stories:
            budget = config.total_steps(config.model_config(config.vocab_size))
            config = replace(config, stories=stories_for(budget * config.tokens_per_step))
        self.config = config = replace(config, out=str(self.folder.path))
        config.model_config(config.vocab_size)  # a mistake is told before a tokenizer is learnt
        self.tokenizer, self.train, self.valid = self._prepare_data(checkpoint)
        self.tokenizer_bytes = self.tokenizer.to_bytes()
        self.model = self._build_model(checkpoint)
        self.batches = RandomWindows(
            self.train,
            batch_size=config.batch_size * config.grad_accum,
            seq_len=config.seq_len,
            seed=config.seed,
        )
        self.learning_rate = config.learning_rate or default_learning_rate(self.model.config)
        self.optimizer = AdamW(
            self.model.parameters,
            learning_rate=self.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            allocate=shared_zeros,
        )
        self.step = 0
        self.best_loss = math.inf
        self.total_steps = config.total_steps(self.model.config)
        if checkpoint:
            self._restore(checkpoint)
        elif not resume:
            self.folder.must_be_unused()  # a second time: another run may have begun meanwhile
        self.folder.create()
        self.folder.write(self.folder.tokenizer, self.tokenizer_bytes)
        self.folder.write(self.folder.config, config.to_toml().encode())  # last: it marks a run
        self.metrics = MetricsLog(self.folder.metrics, keep_steps=self.step)
        self._start_workers(checkpoint)  # last: they see everything that is there when they start

    def close(self) -> None:
        self.progress.stop()
        self.model.stop_workers()
        self.metrics.close()

    # 1. data

    def _prepare_data(
        self, checkpoint: Checkpoint | None
    ) -> tuple[Tokenizer, TokenStream, TokenStream]:
        c = self.config
        corpus = open_corpus(c.data, c.valid, n_stories=c.stories)
        tokenizer = self._tokenizer(corpus.train, checkpoint)
        train = encode_documents(corpus.train, tokenizer, what=c.data)
        valid = encode_documents(
            corpus.valid,
            tokenizer,
            what=c.valid or f"the held-out part of {c.data}",
            source_nats=corpus.valid_nats,
        )
        self.progress.say(
            f"data: {train.n_documents:,} documents, {train.ids.size:,} tokens to train on "
            f"({train.text_bytes / train.ids.size:.2f} bytes a token); "
            f"{valid.n_documents:,} documents, {valid.ids.size:,} tokens held out"
        )
        return tokenizer, train, valid

    def _tokenizer(self, texts: list[str], checkpoint: Checkpoint | None) -> Tokenizer:
        if checkpoint and checkpoint.tokenizer:
            return Tokenizer.from_bytes(checkpoint.tokenizer)
        if self.config.tokenizer:
            return Tokenizer.load(self.config.tokenizer)
        self.progress.say(f"tokenizer: learning {self.config.vocab_size} tokens")
        return Tokenizer.train(
            texts, vocab_size=self.config.vocab_size, special_tokens=[END_OF_TEXT]
        )

    # 2. model

    def _build_model(self, checkpoint: Checkpoint | None) -> GPT:
        if checkpoint:
            if checkpoint.config != self.config.model_config(checkpoint.config.vocab_size):
                raise RunError(
                    f"{checkpoint.path} is another model than these settings describe: a resumed "
                    "run keeps its model (preset, seq_len, [model]); leave them out, or start anew"
                )
            return checkpoint.build()
        model = build_model(self.config.model_config(self.tokenizer.n_vocab), seed=self.config.seed)
        shape = model.config
        self.progress.say(
            f"model: {self.config.preset}, {shape.n_non_embedding:,} parameters and "
            f"{shape.n_parameters - shape.n_non_embedding:,} in the embedding, "
            f"{shape.n_parameters:,} in all"
        )
        return model

    def _restore(self, checkpoint: Checkpoint) -> None:
        saved = checkpoint.metadata
        if saved.get("data_checksum") != self.train.checksum:
            raise RunError(
                f"{self.config.data} is not the text that {checkpoint.path} was trained on: "
                "put it back, or start a new run"
            )
        self.step, self.best_loss = checkpoint.step, float(saved["best_loss"])
        self.optimizer.load_state(
            {
                name.removeprefix(OPTIMIZER): tensor
                for name, tensor in checkpoint.tensors.items()
                if name.startswith(OPTIMIZER)
            }
        )
        self.progress.say(f"resuming {self.folder.path} after step {self.step}")

    def _start_workers(self, checkpoint: Checkpoint | None) -> None:
        """As many as the run began with: their number is part of what decides the last bit."""
        c = self.config
        wanted: int | str = c.workers if c.workers == "auto" else int(c.workers)
        if checkpoint and "workers" in checkpoint.metadata:
            wanted = int(checkpoint.metadata["workers"])
        size, runner = self.model.start_workers(
            wanted,
            batch_size=c.batch_size,
            seq_len=c.seq_len,
            max_tokens=TOKENS_AT_ONCE,
            jobs={"update": self._update_share},
        )
        self.progress.say(f"workers: {size} ({runner})")

    def _update_share(self, member: int, step: float, rate: float, scale: float) -> None:
        self.optimizer.update(
            self.model.gradients,
            step=int(step),
            learning_rate=rate,
            scale=scale,
            share=member,
            shares=self.model.workers,
        )

    # 3. the loop

    def go(self) -> TrainResult:
        self.progress.start(first_step=self.step, total_steps=self.total_steps)
        with StopRequest() as stop:
            while self.step < self.total_steps and not stop.requested:
                self._update()
                if self.step % self.config.eval_every == 0 or self.step == self.total_steps:
                    self._evaluate_slice()
                if self._checkpoint_is_due():
                    self._save_checkpoint()
            self.progress.stop()
            if self.step < self.total_steps:
                self._save_checkpoint()
                return TrainResult(self.folder, self.step, False, None)
        return self._finish()

    def _update(self) -> None:
        started = time.perf_counter()
        loss, norm = self._loss_and_grad()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(self._what_diverged(loss))
        rate = self._learning_rate()
        self.step += 1
        self.optimizer.steps = self.step
        scale = clip_scale(norm, self.config.clip)
        self.model.run_job("update", self.step, rate, scale)
        tokens = self.config.tokens_per_step
        self.metrics.write(
            step=self.step,
            loss=loss,
            learning_rate=rate,
            grad_norm=norm,
            tokens=self.step * tokens,
            seconds=round(time.perf_counter() - started, 6),
        )
        self.progress.step(self.step, loss=loss, tokens=tokens)

    def _loss_and_grad(self) -> tuple[float, float]:
        """The mean loss of the step's batches, its gradient in model.gradients; its norm."""
        parts = self.config.grad_accum
        ids, targets = self.batches(self.step)
        if parts == 1:
            return self.model.loss_and_grad(ids, targets), self.model.gradient_norm
        losses = []
        total = np.zeros(self.model.gradients.flat.size, self.model.dtype)
        for part_ids, part_targets in zip(
            np.split(ids, parts), np.split(targets, parts), strict=True
        ):
            losses.append(self.model.loss_and_grad(part_ids, part_targets))
            total += self.model.gradients.flat
        np.divide(total, parts, out=self.model.gradients.flat)
        return sum(losses) / parts, grad_norm(self.model.gradients)

    def _learning_rate(self) -> float:
        c = self.config
        warmup = min(c.warmup_steps, self.total_steps // 2)
        if c.schedule == "constant":
            factor = schedules.constant(self.step, self.total_steps, warmup_steps=warmup)
        else:
            schedule = {
                "warmup-stable-decay": schedules.warmup_stable_decay,
                "linear": schedules.linear,
                "cosine": schedules.cosine,
            }[c.schedule]
            factor = schedule(self.step, self.total_steps, warmup_steps=warmup, final=c.final_rate)
        return self.learning_rate * factor

    def _what_diverged(self, loss: float) -> str:
        faulty = [n for n, g in self.model.gradients.items() if not np.isfinite(g).all()]
        where = f"the gradient of {faulty[0]}" if faulty else f"the loss ({loss})"
        kept = (
            f"{self.folder.last} is from before that"
            if self.folder.last.exists()
            else "no checkpoint was saved before that"
        )
        return (
            f"{where} is no longer finite at step {self.step + 1}: lower --learning-rate "
            f"({self.learning_rate:g} now); {kept}"
        )

    # 4. evaluation

    def _evaluate_slice(self) -> None:
        """The start of the validation stream, often; best.phi is the best by this measure."""
        n = min(self.config.eval_tokens, self.valid.ids.size)
        result = evaluate(self.model, replace(self.valid, ids=self.valid.ids[:n], source_nats=None))
        if not math.isfinite(result.loss):
            raise Diverged(self._what_diverged(result.loss))
        self.metrics.write(step=self.step, valid_loss=result.loss, valid_tokens=n)
        self.progress.say(f"step {self.step}: held-out loss {result.loss:.4f} on {n:,} tokens")
        if result.loss < self.best_loss:
            self.best_loss = result.loss
            self._save(self.folder.best, state=False)

    def _finish(self) -> TrainResult:
        self._save_checkpoint()
        result = evaluate(self.model, self.valid)
        levels = {}
        if self.config.baselines:
            levels = baselines(
                self.train, self.valid, vocab_size=self.model.config.vocab_size, order=3
            )
        self.metrics.write(
            step=self.step,
            final_loss=result.loss,
            bits_per_byte=result.bits_per_byte,
            valid_tokens=result.tokens,
            text_bytes=result.text_bytes,
            floor=result.floor,
            gap=result.gap,
            gap_error=result.gap_error,
            baselines=levels,
        )
        return TrainResult(self.folder, self.step, True, result, levels)

    # 5. checkpoints

    def _checkpoint_is_due(self) -> bool:
        every = self.config.checkpoint_every
        return every > 0 and self.step % every == 0 and self.step < self.total_steps

    def _save_checkpoint(self) -> None:
        """last.phi and a numbered copy, either complete, with all that resuming needs."""
        self._must_be_good()
        self._save(self.folder.checkpoint(self.step), state=True)
        self.folder.publish_last(self.folder.checkpoint(self.step))
        self.folder.drop_checkpoints(keep=KEEP)

    def _must_be_good(self) -> None:
        """Raises Diverged rather than to overwrite a good checkpoint with one that cannot go on:
        the last update may be the one that broke the weights.
        """
        rows = slice(0, self.config.batch_size)
        ids, targets = self.batches(self.step)
        loss = self.model.loss(ids[rows], targets[rows])
        if not (math.isfinite(loss) and np.isfinite(self.model.parameters.flat).all()):
            raise Diverged(self._what_diverged(loss))

    def _save(self, path: Path, *, state: bool) -> None:
        tensors = {OPTIMIZER + k: v for k, v in self.optimizer.state().items()} if state else {}
        save_checkpoint(
            path,
            self.model,
            step=self.step,
            tokenizer=self.tokenizer_bytes,
            metadata={
                "best_loss": self.best_loss,
                "data_checksum": self.train.checksum,
                "workers": self.model.workers,
            },
            tensors=tensors,
        )


KEEP = 3  # numbered checkpoints


def _open_folder(config: TrainConfig, *, resume: bool) -> tuple[RunFolder, Checkpoint | None]:
    """The run's folder, and with `resume` the checkpoint to go on from.

    A run that was stopped before its first checkpoint has none, and begins again.
    """
    folder = RunFolder(config.out) if config.out else RunFolder.unused(config.preset)
    if not resume:
        folder.must_be_unused()
        return folder, None
    if not config.out:
        raise ConfigError("--resume needs the run's folder: name it with --out")
    return folder, load_checkpoint(folder.last) if folder.last.exists() else None
