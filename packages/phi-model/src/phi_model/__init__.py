"""Small language models in numpy, forward and backward by hand. Knows ids, not text.

>>> from phi_model import ModelConfig, build_model
>>> build_model(ModelConfig.preset("gpt-1m")).config.n_parameters
1180800
"""

from phi_model.build import build_model
from phi_model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from phi_model.config import PRESETS, ModelConfig
from phi_model.errors import (
    CheckpointError,
    ConfigError,
    NotFiniteError,
    PhiModelError,
    WorkerError,
)
from phi_model.gpt import GPT
from phi_model.gradcheck import GradientCheck, check_gradients
from phi_model.language_model import LanguageModel
from phi_model.memory import shared_zeros
from phi_model.rwkv7 import RWKV7, RWKV7State

__all__ = [
    "GPT",
    "PRESETS",
    "RWKV7",
    "Checkpoint",
    "CheckpointError",
    "ConfigError",
    "GradientCheck",
    "LanguageModel",
    "ModelConfig",
    "NotFiniteError",
    "PhiModelError",
    "RWKV7State",
    "WorkerError",
    "build_model",
    "check_gradients",
    "load_checkpoint",
    "save_checkpoint",
    "shared_zeros",
]

__version__ = "0.1.0"
