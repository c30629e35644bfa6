"""Training, evaluation and baselines for small language models, on the hardware you own.

>>> from phi_train import TrainConfig, train
>>> train(TrainConfig(data="stories.txt", preset="gpt-100k", steps=500))  # doctest: +SKIP
"""

from phi_train.config import TrainConfig
from phi_train.errors import ConfigError, DataError, Diverged, PhiTrainError, RunError
from phi_train.evaluate import Evaluation, evaluate
from phi_train.loop import TrainResult, train
from phi_train.ngram import KneserNey, baselines

__all__ = [
    "ConfigError",
    "DataError",
    "Diverged",
    "Evaluation",
    "KneserNey",
    "PhiTrainError",
    "RunError",
    "TrainConfig",
    "TrainResult",
    "baselines",
    "evaluate",
    "train",
]

__version__ = "0.1.0"
