"""The checkpoint to go on from: the newest one in a run's folder that is sound.

A crash or a failing disk may damage the last one; the numbered ones before it are then as good.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from phi_model import Checkpoint, CheckpointError, load_checkpoint
from phi_train.errors import RunError
from phi_train.run_folder import RunFolder

__all__ = ["Found", "newest_sound"]


@dataclass(frozen=True)
class Found:
    """checkpoint is None where the folder holds none; damaged: what was passed over, and why."""

    checkpoint: Checkpoint | None
    damaged: list[str] = field(default_factory=list)


def newest_sound(folder: RunFolder) -> Found:
    """The sound checkpoint with the most steps; RunError when there are only damaged ones."""
    sound: list[Checkpoint] = []
    damaged: list[str] = []
    for path in _candidates(folder):
        if sound and _number(path) <= sound[0].step:
            continue  # cannot be newer
        try:
            opened = load_checkpoint(path)
        except (CheckpointError, OSError) as error:
            damaged.append(str(error))
            continue
        sound.append(opened)
        sound.sort(key=lambda checkpoint: -checkpoint.step)
    if sound:
        return Found(sound[0], damaged)
    if damaged:
        raise RunError(
            f"{damaged[0]}; no other checkpoint in {folder.path} is sound: put one back, or start "
            "anew in another folder"
        )
    return Found(None)


def _candidates(folder: RunFolder) -> list[Path]:
    """last.phi, then the numbered ones from the newest; the same file is looked at once."""
    numbered = folder.numbered()[::-1]
    if not folder.last.exists():
        return numbered
    return [folder.last, *(path for path in numbered if not path.samefile(folder.last))]


def _number(path: Path) -> float:
    """The step in the name of a numbered checkpoint; of any other, unknown: as large as may be."""
    digits = path.stem.removeprefix("step-")
    return int(digits) if digits.isdecimal() else float("inf")
