"""The public names, the examples in the docstrings, and what an import brings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import phi_optim

MODULES = ["phi_optim", *(f"phi_optim.{m.name}" for m in pkgutil.iter_modules(phi_optim.__path__))]


def test_public_names():
    assert len(phi_optim.__all__) == len(set(phi_optim.__all__))
    assert set(phi_optim.__all__) == {
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
    }


@pytest.mark.parametrize("name", MODULES)
def test_modules_export_what_they_have_and_their_examples_run(name):
    module = importlib.import_module(name)
    assert module.__doc__
    assert all(hasattr(module, public) for public in module.__all__)
    assert doctest.testmod(module).failed == 0


def test_importing_brings_numpy_alone():
    code = (
        "import sys, numpy\n"
        "before = set(sys.modules)\n"
        "import phi_optim\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names) - {'numpy'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "['phi_optim']"
