"""Groups of parameters by name: what decays, and whose learning rate differs.

>>> import numpy as np
>>> from phi_optim import AdamW
>>> weights = {"embedding": np.zeros((9, 4)), "layers.0.qkv": np.zeros((12, 4))}
>>> groups = [Group("embedding", weight_decay=0.0), Group("layers.*", rate=0.5)]
>>> optimizer = AdamW(weights, groups=groups)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_optim.checks import check_range
from phi_optim.errors import HyperparameterError
from phi_optim.segments import DecayRule, Rule

__all__ = ["Group", "is_matrix", "rules_of"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Group:
    """The parameters whose name matches `pattern` (as of a shell: * ? [..]), and their own rule.

    Raises HyperparameterError for a value out of range.
    """

    pattern: str
    weight_decay: float | None = None  # None: the optimiser's, where its decay rule says so
    rate: float = 1.0  # multiplies the learning rate

    def __post_init__(self) -> None:
        check_range(f"the rate of group {self.pattern!r}", self.rate, 0, np.inf)
        if self.weight_decay is not None:
            check_range(f"weight_decay of group {self.pattern!r}", self.weight_decay, 0, np.inf)


def is_matrix(name: str, value: Array) -> bool:  # noqa: ARG001 (a rule may look at the name)
    """The usual rule: matrices decay, gains and biases do not."""
    return value.ndim >= 2


def rules_of(
    parameters: Mapping[str, Array],
    weight_decay: float,
    decay: DecayRule,
    groups: Sequence[Group],
) -> dict[str, Rule]:
    """name -> its rule; of several groups that match, the first counts.

    Raises HyperparameterError for a group that matches no name.
    """
    for group in groups:
        if not any(fnmatchcase(name, group.pattern) for name in parameters):
            raise HyperparameterError(
                f"group {group.pattern!r} matches no parameter; there are "
                f"{', '.join(list(parameters)[:5])}, ..."
            )
    rules = {}
    for name, value in parameters.items():
        own = next((g for g in groups if fnmatchcase(name, g.pattern)), Group(name))
        pull = own.weight_decay
        if pull is None:
            pull = weight_decay if decay(name, value) else 0.0
        rules[name] = Rule(pull, own.rate)
    return rules
