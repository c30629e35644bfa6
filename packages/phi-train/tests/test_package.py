"""The public names, the examples in the docstrings, and what an import brings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import phi_train

MODULES = [
    f"phi_train.{module.name}"
    for module in pkgutil.iter_modules(phi_train.__path__)
    if not module.ispkg
]


def test_public_names():
    assert phi_train.__all__ == sorted(phi_train.__all__)
    assert set(phi_train.__all__) >= {
        *("ConfigError", "DataError", "Diverged", "Evaluation", "KneserNey", "PhiTrainError"),
        *("RunError", "TrainConfig", "TrainResult", "baselines", "evaluate", "train"),
    }
    assert all(hasattr(phi_train, name) for name in phi_train.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_modules_export_what_they_have_and_their_examples_run(name):
    module = importlib.import_module(name)
    assert module.__doc__
    assert all(hasattr(module, public) for public in module.__all__)
    assert doctest.testmod(module).failed == 0


def test_importing_brings_no_extra_and_no_command_line():
    code = "import sys, phi_train; print(sorted({n.split('.')[0] for n in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    for unwanted in ("typer", "rich", "click", "pyarrow", "scipy", "matplotlib", "torch"):
        assert f"'{unwanted}'" not in done.stdout
