"""The modules of the data side: their public names, their examples, and what an import brings."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import pytest

MODULES = [
    f"phi_train.{name}"
    for name in (
        *("byte_progress", "cli_data", "corpus", "datasets", "encoding", "fetch", "http_file"),
        *("inputs", "one_process", "permutation", "prepare", "ranges", "shards", "split"),
    )
]


@pytest.mark.parametrize("name", MODULES)
def test_modules_export_what_they_have_and_their_examples_run(name):
    module = importlib.import_module(name)
    assert module.__doc__
    assert list(module.__all__) == sorted(module.__all__, key=_as_ruff_sorts)
    assert all(hasattr(module, public) for public in module.__all__)
    assert doctest.testmod(module).failed == 0


def _as_ruff_sorts(name):
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_reading_prepared_data_brings_nothing_else():
    code = "import sys, phi_train.shards; print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    for unwanted in ("urllib.request", "ssl", "phi_train.prepare", "rich", "typer", "pyarrow"):
        assert f"'{unwanted}'" not in done.stdout
