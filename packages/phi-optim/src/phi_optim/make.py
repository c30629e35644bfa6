"""Optimisers by name, for a command line or a config file.

>>> import numpy as np
>>> make_optimizer("adamw", {"w": np.zeros((2, 2))}, learning_rate=1e-3).name
'adamw'
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from phi_optim.adamw import AdamW
from phi_optim.errors import HyperparameterError
from phi_optim.groups import Group, is_matrix
from phi_optim.lion import Lion
from phi_optim.memory import aligned_zeros
from phi_optim.muon import Muon
from phi_optim.optimizer import Optimizer
from phi_optim.schedule_free import ScheduleFreeAdamW
from phi_optim.segments import Allocator, DecayRule
from phi_optim.sgd import SGD

__all__ = ["OPTIMIZERS", "make_optimizer"]

Array = NDArray[Any]

CLASSES: dict[str, Callable[..., Any]] = {
    optimizer.name: optimizer for optimizer in (AdamW, Lion, ScheduleFreeAdamW, Muon, SGD)
}
OPTIMIZERS = tuple(CLASSES)


def make_optimizer(
    name: str,
    parameters: Mapping[str, Array],
    *,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    betas: tuple[float, float] | None = None,
    decay: DecayRule = is_matrix,
    groups: Sequence[Group] = (),
    allocate: Allocator = aligned_zeros,
    **options: Any,
) -> Optimizer:
    """The optimiser called `name`; None stands for its own default, the best measured.

    betas[0] is the momentum of an optimiser that has one decay only. options: what the class of
    that name takes beside these. Raises HyperparameterError for a name or an option that is not
    there, or a value out of range.
    """
    if name not in CLASSES:
        raise HyperparameterError(f"no optimiser is called {name!r}; there are {_list(OPTIMIZERS)}")
    given = {"learning_rate": learning_rate, "weight_decay": weight_decay, "betas": betas}
    known = set(inspect.signature(CLASSES[name]).parameters) - {"parameters"}
    if betas is not None and "betas" not in known:
        given |= {"betas": None, "momentum": options.pop("momentum", betas[0])}
    if odd := sorted(options.keys() - known):
        raise HyperparameterError(f"{name} has no option {odd[0]!r}; it takes {_list(known)}")
    options |= {option: value for option, value in given.items() if value is not None}
    options |= {"decay": decay, "groups": groups, "allocate": allocate}
    made: Optimizer = CLASSES[name](parameters, **options)
    return made


def _list(names: Sequence[str] | set[str]) -> str:
    return ", ".join(sorted(names) if isinstance(names, set) else names)
