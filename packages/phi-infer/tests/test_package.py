"""The public names, the examples in the docstrings, and what an import brings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import phi_infer

MODULES = ["phi_infer", *(m.name for m in pkgutil.walk_packages(phi_infer.__path__, "phi_infer."))]


def test_public_names():
    assert set(phi_infer.__all__) == {
        "Completion",
        "FormatError",
        "Generator",
        "ModelError",
        "PhiInferError",
        "Sampling",
        "SamplingError",
        "Score",
        "TextState",
        "TokenChoice",
        "load",
    }
    assert phi_infer.__all__ == sorted(phi_infer.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_modules_export_what_they_have_and_their_examples_run(name):
    module = importlib.import_module(name)
    assert module.__doc__
    assert all(hasattr(module, public) for public in module.__all__)
    assert doctest.testmod(module).failed == 0


def test_importing_brings_neither_training_nor_the_command_line():
    code = "import sys, phi_infer; print(sorted({n.split('.')[0] for n in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    for unwanted in ("phi_train", "phi_optim", "typer", "rich", "click", "scipy", "torch"):
        assert f"'{unwanted}'" not in done.stdout
