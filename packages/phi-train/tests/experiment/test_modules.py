"""The modules' names, examples, and what importing them brings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

from phi_train import experiment

MODULES = [f"phi_train.experiment.{m.name}" for m in pkgutil.iter_modules(experiment.__path__)]


def test_public_names():
    assert experiment.__all__ == sorted(experiment.__all__)
    assert all(hasattr(experiment, name) for name in experiment.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_modules_export_what_they_have_and_their_examples_run(name):
    module = importlib.import_module(name)
    assert module.__doc__
    assert all(hasattr(module, public) for public in module.__all__)
    assert doctest.testmod(module).failed == 0


def test_importing_brings_no_extra():
    code = "import sys, phi_train.experiment, phi_train.experiment.cluster; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    tops = {name.split(".")[0] for name in done.stdout.split()}
    assert not tops & {"dask", "distributed", "typer", "rich", "scipy", "matplotlib", "pyarrow"}
