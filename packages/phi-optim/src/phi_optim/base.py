"""The part that optimisers over flat buffers share: checks, shares of the work, saved state.

An optimiser is a subclass that names its state arrays and updates one stretch of memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from phi_optim.checks import (
    check_finite_gradients,
    check_finite_scale,
    check_gradients_fit,
    check_range,
)
from phi_optim.groups import Group, is_matrix, rules_of
from phi_optim.memory import aligned_empty, aligned_zeros
from phi_optim.segments import (
    BLOCK,
    Allocator,
    Block,
    DecayRule,
    Rule,
    Segment,
    block_views,
    flat_views,
    load_arrays,
    segments,
    share_of,
)

__all__ = ["FlatOptimizer"]

Array = NDArray[Any]


class FlatOptimizer:
    """Checks, shares and state; a subclass adds _update.

    parameters: name -> float array; decay(name, array) says which of them weight_decay pulls
    towards 0 (matrices unless told otherwise), groups what differs by name. allocate(size, dtype)
    makes the state arrays called `slots`, of zeros: in memory that forked workers share each of
    them can call update() for its share.
    """

    name: ClassVar[str]
    schedule: ClassVar[str] = "warmup-stable-decay"
    scratch_rows: ClassVar[int] = 1

    def __init__(
        self,
        parameters: Mapping[str, Array],
        *,
        learning_rate: float,
        weight_decay: float,
        decay: DecayRule = is_matrix,
        groups: Sequence[Group] = (),
        allocate: Allocator = aligned_zeros,
        slots: Sequence[str] = (),
    ) -> None:
        check_range("learning_rate", learning_rate, 0, np.inf)
        check_range("weight_decay", weight_decay, 0, np.inf)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.steps = 0
        self._values = flat_views(parameters)
        self._segments = segments(parameters, rules_of(parameters, weight_decay, decay, groups))
        self._works: dict[tuple[int, int], tuple[Array | None, list[tuple[Rule, list[Block]]]]] = {}
        self._scratches: dict[tuple[int, np.dtype[Any]], Array] = {}
        self._slots = {
            slot: {name: allocate(v.size, v.dtype) for name, v in self._values.items()}
            for slot in slots
        }

    @property
    def state_floats_per_parameter(self) -> float:
        """Memory beside value and gradient."""
        total = sum(value.size for value in self._values.values())
        held = sum(array.size for table in self._slots.values() for array in table.values())
        return held / total if total else 0.0

    def step(
        self,
        gradients: Mapping[str, Array],
        *,
        learning_rate: float | None = None,
        scale: float = 1.0,
    ) -> None:
        """One update. `scale` multiplies the gradients, as clipping asks for, in the same pass.

        Raises, before anything changes: NotFiniteError when `scale` or a gradient is not finite;
        StateError when the gradients are not those of the parameters.
        """
        check_finite_scale(scale)
        rate = self.learning_rate if learning_rate is None else learning_rate
        check_range("learning_rate", rate, 0, np.inf)
        check_gradients_fit(flat_views(gradients), self._values)
        check_finite_gradients(gradients)
        self.steps += 1
        self.update(gradients, step=self.steps, learning_rate=rate, scale=scale)

    def update(
        self,
        gradients: Mapping[str, Array],
        *,
        step: int,
        learning_rate: float,
        scale: float = 1.0,
        share: int = 0,
        shares: int = 1,
    ) -> None:
        """Update number `step` (1 is the first) of one worker's share of the parameters.

        For callers that run workers: all shares together are one step(), whose checks, and the
        counting in `steps`, are then the caller's: pass the scale that clip_scale makes of the
        gradients' norm, and a NaN among them raises NotFiniteError here, before anything changes.
        """
        check_finite_scale(scale)
        flat_gradients = flat_views(gradients)
        for rule, blocks in self._work(flat_gradients, share, shares):
            self._update(rule, blocks, step, learning_rate * rule.rate, scale)

    def _update(
        self, rule: Rule, blocks: Sequence[Block], step: int, rate: float, scale: float
    ) -> None:
        """Blocks under one rule: gradient, value, each slot's array, scratch_rows of scratch."""
        raise NotImplementedError

    def _work(
        self, gradients: Mapping[str, Array], share: int, shares: int
    ) -> list[tuple[Rule, list[Block]]]:
        """A share's blocks. Kept from step to step for gradients in one flat buffer, since what
        Python does between two operations is time in which the other threads wait for it.
        """
        flat = gradients.get("")
        of, work = self._works.get((share, shares), (None, []))
        if flat is None or flat is not of:
            work = [
                (segment.rule, self._blocks_of(segment, gradients, share))
                for segment in share_of(self._segments, share, shares)
            ]
            self._works[share, shares] = (flat, work if flat is not None else [])
        return work

    def _blocks_of(
        self, segment: Segment, gradients: Mapping[str, Array], share: int
    ) -> list[Block]:
        tables = (gradients, self._values, *self._slots.values())
        arrays = [table[segment.buffer] for table in tables]
        scratch = self._scratch_of(share, arrays[1].dtype)
        return block_views(arrays, segment.start, segment.end, scratch)

    def _scratch_of(self, share: int, dtype: np.dtype[Any]) -> Array:
        """A worker's own [scratch_rows, length of the longest block], made once."""
        if (share, dtype) not in self._scratches:
            longest = max(segment.end - segment.start for segment in self._segments)
            shape = (self.scratch_rows, min(BLOCK, longest))
            self._scratches[share, dtype] = aligned_empty(shape, dtype)
        return self._scratches[share, dtype]

    def train(self) -> None:
        """Nothing to do: one view serves gradients and evaluation."""

    def eval(self) -> None:
        """Nothing to do: one view serves gradients and evaluation."""

    def state(self) -> dict[str, Array]:
        """Everything a bit-exact resume needs, as arrays (not copies)."""
        arrays = {"steps": np.array([self.steps], np.int64)}
        for slot, table in self._slots.items():
            arrays |= {f"{slot}/{name}": array for name, array in table.items()}
        return arrays

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Takes over what state() gave; raises StateError when it does not fit."""
        load_arrays(self.state(), state, self.name)
        self.steps = int(state["steps"][0])
