"""A clock inside phi_model: every op's own time and its products, without a change to its code.

While it runs, the modules of phi_model see timed stand-ins for the functions they call and for
numpy's matrix products; afterwards everything is as it was. Time spent in an op that another op
calls is the inner one's. A product with a parameter counts as an op named after the parameter.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Clock", "OpTime"]

Array = NDArray[Any]

PACKAGE = "phi_model"
PRODUCTS = ("matmul", "dot", "vdot")
LAYER = re.compile(r"^layers\.\d+\.")


@dataclass
class OpTime:
    """What one op of one phase came to in a step."""

    calls: int = 0
    seconds: float = 0.0
    flops: float = 0.0  # two for each multiply-add of its products; nothing else is counted


class Clock:
    """Times of a step by (phase, op), phases being forward and backward.

    parameters and gradients: flat buffers and the tables that name their stretches, to know a
    product by what it multiplies.
    """

    def __init__(self, parameters: Mapping[str, Array], gradients: Mapping[str, Array]) -> None:
        self._parameters = _places(parameters)
        self._gradients = _places(gradients)
        matrices = [v.shape for v in parameters.values() if v.ndim == 2]
        self._shapes = {*matrices, *(shape[::-1] for shape in matrices)}
        self._stand_ins: list[tuple[ModuleType, str, Any, Any]] = []
        self.ops: dict[tuple[str, str], OpTime] = {}
        self._open: list[list[Any]] = []  # [op, seconds of the ops inside it], outermost first
        self._backwards = 0  # how many of the open ones go backwards

    def take(self) -> dict[tuple[str, str], OpTime]:
        """The times since the last call."""
        ops, self.ops = self.ops, {}
        return ops

    def op(self, name: str, call: Callable[[], Any], *, phase: str = "", flops: float = 0.0) -> Any:
        """Times a call as an op; gives what it gives."""
        key = (phase or ("backward" if self._backwards else "forward"), name)
        entry = self.ops.get(key)
        if entry is None:
            entry = self.ops[key] = OpTime()
        frame: list[Any] = [entry, 0.0]
        self._open.append(frame)
        started = time.perf_counter()
        try:
            return call()
        finally:
            spent = time.perf_counter() - started
            self._open.pop()
            entry.calls += 1
            entry.seconds += spent - frame[1]
            entry.flops += flops
            if self._open:
                self._open[-1][1] += spent

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Inside, phi_model runs by this clock."""
        self._stand_ins = self._stand_ins or self._find()
        try:
            for module, name, _, stand_in in self._stand_ins:
                setattr(module, name, stand_in)
            yield
        finally:
            for module, name, own, _ in self._stand_ins:
                setattr(module, name, own)

    def _find(self) -> list[tuple[ModuleType, str, Any, Any]]:
        """(module, name, what it has there, what takes its place)."""
        found: list[tuple[ModuleType, str, Any, Any]] = []
        numpy = _Numpy(self)
        for module in _modules():
            for name, own in list(vars(module).items()):
                if own is np:
                    found.append((module, name, own, numpy))
                elif _is_op(name, own):
                    found.append((module, name, own, self._timed(own)))
        return found

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__
        backwards = "backward" in name

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._backwards += backwards
            try:
                return self.op(name, functools.partial(function, *args, **kwargs))
            finally:
                self._backwards -= backwards

        return timed

    def product(self, function: Callable[..., Any], a: Any, b: Any, **kwargs: Any) -> Any:
        """A matrix product: an op of its own with a parameter in it, else a part of the open op."""
        flops = _flops(a, b)
        name = self._parameter_in(a, b, kwargs.get("out"))
        if name is not None:
            return self.op(name, functools.partial(function, a, b, **kwargs), flops=flops)
        if self._open:
            self._open[-1][0].flops += flops
        return function(a, b, **kwargs)

    def _parameter_in(self, a: Array, b: Array, out: Array | None) -> str | None:
        if out is not None and out.shape in self._shapes:
            name = self._gradients.get(out.ctypes.data)
            if name is not None:
                return f"{name}, by weights"
        for factor in (a, b):
            if factor.shape in self._shapes:  # first, for it is quick
                name = self._parameters.get(factor.ctypes.data)
                if name is not None:
                    return f"{name}, by inputs" if self._backwards else name
        return None


class _Numpy:
    """numpy, but for its products."""

    def __init__(self, clock: Clock) -> None:
        self.__dict__ |= vars(np)  # as quick to reach as in numpy itself
        for name in PRODUCTS:
            setattr(self, name, functools.partial(clock.product, getattr(np, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def _modules() -> list[ModuleType]:
    found = (m for n, m in sys.modules.items() if n == PACKAGE or n.startswith(f"{PACKAGE}."))
    return [module for module in found if isinstance(module, ModuleType)]


def _is_op(name: str, value: Any) -> bool:
    """A public function of phi_model that runs when it is called, as generators do not."""
    return (
        not name.startswith("_")
        and isinstance(value, FunctionType)
        and value.__module__.startswith(PACKAGE)
        and not inspect.isgeneratorfunction(inspect.unwrap(value))
    )


def _places(table: Mapping[str, Array]) -> dict[int, str]:
    """Address -> name, the same for the same matrix of every layer; vectors make no products.

    The embedding looks tokens up without one: a product with it is the tied head's.
    """
    matrices = {name: value for name, value in table.items() if value.ndim == 2}
    places = {value.ctypes.data: LAYER.sub("", name) for name, value in matrices.items()}
    return {at: "head" if name == "embedding" else name for at, name in places.items()}


def _flops(a: Array, b: Array) -> float:
    """Two for each multiply-add of a @ b, batches broadcast."""
    rows = a.shape[-2] if a.ndim > 1 else 1
    columns = b.shape[-1] if b.ndim > 1 else 1
    batches = a.shape[:-2], b.shape[:-2]
    one = batches[0] if batches[0] == batches[1] else np.broadcast_shapes(*batches)
    return 2.0 * math.prod(one) * rows * int(a.shape[-1]) * columns
