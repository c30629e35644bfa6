"""What a training run gives back."""

from __future__ import annotations

from dataclasses import dataclass, field

from phi_train.evaluate import Evaluation
from phi_train.run_folder import RunFolder

__all__ = ["TrainResult"]


@dataclass(frozen=True)
class TrainResult:
    """What a run came to."""

    folder: RunFolder
    step: int
    finished: bool  # False when it was stopped and can be resumed
    evaluation: Evaluation | None  # of the last weights, on the whole validation stream
    baselines: dict[str, float] = field(default_factory=dict)  # nats a token
