"""The folder of a run, and what is there already: nothing, a part of the run, or all of it."""

from __future__ import annotations

from phi_model import Checkpoint
from phi_train.beginning import adopt
from phi_train.budget import Budget
from phi_train.checkpoints import newest_sound
from phi_train.config import TrainConfig
from phi_train.errors import ConfigError
from phi_train.evaluate import Evaluation
from phi_train.progress import Progress
from phi_train.result import TrainResult
from phi_train.run_folder import RunFolder

__all__ = ["checkpoint_to_resume", "finished_before", "is_out_of_patience", "open_folder"]


def open_folder(config: TrainConfig, *, resume: bool) -> RunFolder:
    """The run's folder. Raises ConfigError for a resume without one, RunError for a used one."""
    if resume and not config.out:
        raise ConfigError("--resume needs the run's folder: name it with --out")
    folder = RunFolder(config.out) if config.out else RunFolder.unused(config.preset)
    if not resume:
        folder.must_be_unused()
    return folder


def checkpoint_to_resume(folder: RunFolder, progress: Progress) -> Checkpoint | None:
    """The one to go on from; none in a run that was stopped before its first, or not begun."""
    found = newest_sound(folder)
    for complaint in found.damaged:
        progress.say(f"warning: {complaint}")
    if found.damaged and found.checkpoint is not None:
        progress.say(f"going on from {found.checkpoint.path} instead")
    return found.checkpoint


def finished_before(
    config: TrainConfig, folder: RunFolder, checkpoint: Checkpoint
) -> TrainResult | None:
    """What a finished run came to, if these settings ask for no more than it has done."""
    line = folder.final_line()
    if line is None or line.get("step") != checkpoint.step:
        return None
    if config.init_from:
        config = adopt(config, checkpoint)
    if checkpoint.config != config.model_config(checkpoint.config.vocab_size):
        return None
    saved = checkpoint.metadata
    budget = Budget(config.total_steps(checkpoint.config), config.seconds)
    used_up = budget.is_used_up(checkpoint.step, float(saved.get("elapsed", 0.0)))
    if not used_up and not is_out_of_patience(config, int(saved.get("since_best", 0))):
        return None
    return TrainResult(
        folder, checkpoint.step, True, Evaluation.from_final(line), line.get("baselines", {})
    )


def is_out_of_patience(config: TrainConfig, since_best: int) -> bool:
    """Whether so many evaluations without a better one end the run."""
    return 0 < config.patience <= since_best
