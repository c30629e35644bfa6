"""Optimisers, clipping and schedules for flat numpy parameters. Knows no model.

>>> import numpy as np
>>> from phi_optim import AdamW, clip_grad_norm, schedules
>>> weights = {"w": np.zeros((2, 3), np.float32)}
>>> optimizer = AdamW(weights, learning_rate=1e-2)
>>> gradients = {"w": np.ones((2, 3), np.float32)}
>>> norm = clip_grad_norm(gradients, 1.0)
>>> optimizer.step(gradients, learning_rate=1e-2 * schedules.cosine(0, 100))
"""

from phi_optim import schedules
from phi_optim.accumulation import GradientMean
from phi_optim.adamw import AdamW
from phi_optim.clipping import clip_grad_norm, clip_scale, grad_norm
from phi_optim.ema import Ema
from phi_optim.errors import HyperparameterError, NotFiniteError, PhiOptimError, StateError
from phi_optim.groups import Group
from phi_optim.lion import Lion
from phi_optim.make import OPTIMIZERS, make_optimizer
from phi_optim.muon import Muon
from phi_optim.optimizer import Optimizer
from phi_optim.schedule_free import ScheduleFreeAdamW
from phi_optim.sgd import SGD

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "AdamW",
    "Ema",
    "GradientMean",
    "Group",
    "HyperparameterError",
    "Lion",
    "Muon",
    "NotFiniteError",
    "Optimizer",
    "PhiOptimError",
    "ScheduleFreeAdamW",
    "StateError",
    "clip_grad_norm",
    "clip_scale",
    "grad_norm",
    "make_optimizer",
    "schedules",
]

__version__ = "0.1.0"
