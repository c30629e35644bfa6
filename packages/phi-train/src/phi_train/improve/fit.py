"""Trains a model on rows, into a file; what a kill leaves unfinished is taken up again.

The result depends on the first weights, the rows, the settings and the seed, not on how often the
work was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phi_model import CheckpointError, LanguageModel, load_checkpoint, save_checkpoint
from phi_optim import Optimizer, clip_scale, make_optimizer, schedules
from phi_train.errors import Stopped
from phi_train.improve.pause import Pause
from phi_train.improve.rows import Row, RowOrder, collate, widest

__all__ = ["FitSettings", "Trainer", "fit", "fit_by"]

FINAL = 0.02  # of the peak rate, at the last step
WARMUP = 0.05  # of the steps
STATE = "optimizer/"  # prefix of its tensors in a file


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """AdamW on batches of rows, warm-up, then a straight line down."""

    steps: int
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    clip: float = 1.0
    workers: int = 1
    save_every: int = 100  # steps between two states that a resume can begin from


class Trainer:
    """A model and its optimiser, saved and restored together."""

    def __init__(self, model: LanguageModel, settings: FitSettings) -> None:
        self.model, self.settings = model, settings
        self.optimizer: Optimizer = make_optimizer(
            "adamw",
            model.parameters,
            weight_decay=settings.weight_decay,
            decay=lambda name, _: model.decays(name),
        )

    def rate(self, step: int) -> float:
        """The learning rate of update number `step`, from 0."""
        steps = self.settings.steps
        return self.settings.learning_rate * schedules.linear(
            step, steps, warmup_steps=max(1, round(WARMUP * steps)), final=FINAL
        )

    def update(self, step: int) -> None:
        """With the gradients at hand."""
        scale = clip_scale(self.model.gradient_norm, self.settings.clip)
        self.optimizer.step(self.model.gradients, learning_rate=self.rate(step), scale=scale)

    def save(self, path: Path, step: int, tokenizer: bytes) -> None:
        """Everything that restore() needs."""
        state = {STATE + name: value for name, value in self.optimizer.state().items()}
        save_checkpoint(path, self.model, step=step, tokenizer=tokenizer, tensors=state)

    def restore(self, path: Path) -> int:
        """Goes on from save()'s file, where there is one and it is sound; how many updates were
        made. Without one the work begins anew, with the same result.
        """
        try:
            saved = load_checkpoint(path)
        except (FileNotFoundError, CheckpointError):
            return 0
        self.model.parameters.assign(saved.parameters)
        own = {
            name.removeprefix(STATE): np.array(value)
            for name, value in saved.tensors.items()
            if name.startswith(STATE)
        }
        self.optimizer.load_state(own)
        self.optimizer.steps = saved.step
        return saved.step


def fit(
    model: LanguageModel,
    rows: Sequence[Row],
    settings: FitSettings,
    *,
    seed: int,
    path: Path,
    tokenizer: bytes,
    pause: Pause,
    tell: Callable[[int, int, float], None] = lambda *_: None,
) -> None:
    """Trains `model` on what is learnt of the rows and writes it to `path`; see fit_by.

    tell gets the loss in nats a learnt token.
    """
    order = RowOrder(rows, batch_size=settings.batch_size, seed=seed)

    def gradient(step: int) -> float:
        return model.loss_and_grad(*collate(order.batch(step)))

    fit_by(
        model, gradient, settings, shape=(settings.batch_size, widest(rows)), path=path,
        tokenizer=tokenizer, pause=pause, tell=tell,
    )  # fmt: skip


def fit_by(
    model: LanguageModel,
    gradient: Callable[[int], float],
    settings: FitSettings,
    *,
    shape: tuple[int, int],
    path: Path,
    tokenizer: bytes,
    pause: Pause,
    tell: Callable[[int, int, float], None] = lambda *_: None,
) -> None:
    """Trains `model` and writes it to `path`; does nothing but read it when it is there.

    gradient(step): leaves the gradient of step 0, 1, .. in model.gradients, returns its loss; a
    function of the step and the weights alone. shape: (B, T) of the largest batch. tell(step,
    steps, loss): after each update.
    """
    unfinished = path.with_name(f"{path.stem}.unfinished.phi")
    if path.exists():
        model.parameters.assign(load_checkpoint(path).parameters)
        unfinished.unlink(missing_ok=True)
        return
    trainer = Trainer(model, settings)
    first = trainer.restore(unfinished)
    model.start_workers(settings.workers, batch_size=shape[0], seq_len=shape[1])
    try:
        for step in range(first, settings.steps):
            try:
                pause.point()
            except Stopped:
                trainer.save(unfinished, step, tokenizer)
                raise
            loss = gradient(step)
            trainer.update(step)
            if (step + 1) % settings.save_every == 0 and step + 1 < settings.steps:
                trainer.save(unfinished, step + 1, tokenizer)
            tell(step + 1, settings.steps, loss)
    finally:
        model.stop_workers()
    save_checkpoint(path, model, step=settings.steps, tokenizer=tokenizer)
    unfinished.unlink(missing_ok=True)
