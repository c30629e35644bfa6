"""The package as others meet it: its names, what importing it costs, and its examples."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import phi_model

MODULES = ["phi_model", *(m.name for m in pkgutil.walk_packages(phi_model.__path__, "phi_model."))]


def run(script: str) -> Any:
    """What a fresh interpreter prints for `script`, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert not done.stderr
    return json.loads(done.stdout)


def test_all_is_sorted_complete_and_importable() -> None:
    names = phi_model.__all__
    as_ruff_sorts = sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    assert names == as_ruff_sorts  # constants, classes, functions
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(phi_model, name).__doc__
    agreed = "ModelConfig GPT build_model load_checkpoint save_checkpoint check_gradients"
    assert set(names) >= set(agreed.split())


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_and_what_it_offers(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    for offered in module.__all__:
        assert hasattr(module, offered)


def test_the_package_has_types() -> None:
    assert (Path(phi_model.__file__).parent / "py.typed").exists()


def test_errors_have_one_base_and_fit_the_built_in_ones() -> None:
    for name in ("ConfigError", "CheckpointError", "NotFiniteError"):
        assert issubclass(getattr(phi_model, name), phi_model.PhiModelError)
    assert issubclass(phi_model.ConfigError, ValueError)
    assert issubclass(phi_model.NotFiniteError, ArithmeticError)
    assert not issubclass(phi_model.PhiModelError, ValueError)


def test_importing_it_is_light() -> None:
    script = """
        import json, sys, time
        import numpy, msgpack
        before = set(sys.modules)
        start = time.perf_counter()
        import phi_model
        seconds = time.perf_counter() - start
        print(json.dumps([seconds, sorted(set(sys.modules) - before), sorted(sys.modules)]))
    """
    seconds, brought, everything = run(script)
    assert seconds < 1  # 0.03 or so; a slow and busy core gets its share of patience
    unwanted = {
        "gguf",
        "multiprocessing",
        "phi_infer",
        "phi_optim",
        "phi_tokenizer",
        "phi_train",
        "rich",
        "safetensors",
        "scipy",
        "torch",
        "typer",
    }
    assert unwanted.isdisjoint(everything)
    assert "phi_model.gpt" in brought


def test_importing_and_using_it_changes_no_setting() -> None:
    script = """
        import json, os, random, signal, warnings
        import numpy as np
        try:
            from threadpoolctl import threadpool_info
        except ImportError:
            def threadpool_info():
                return []

        def settings():
            threads = [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()]
            return [
                np.geterr(),
                repr(np.get_printoptions()),
                threads,
                sorted(os.environ.items()),
                repr(warnings.filters),
                repr(np.random.get_state()),
                repr(random.getstate()),
                os.getcwd(),
                repr(signal.getsignal(signal.SIGINT)),
                os.umask(0o022),
            ]

        os.umask(0o022)
        before = settings()
        import phi_model
        after_import = settings()
        model = phi_model.GPT(phi_model.ModelConfig.preset("gpt-1k"))
        model.loss_and_grad([[1, 2, 3]], [[2, 3, 4]])
        model.parameters.flat[:] *= 1000
        model.loss_and_grad([[1, 2, 3]], [[2, 3, 4]])
        print(json.dumps([before == after_import, before == settings()]))
    """
    assert run(script) == [True, True]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_the_main_modules_have_an_example() -> None:
    finder = doctest.DocTestFinder()
    for name in ("phi_model", "config", "gpt", "gradcheck", "checkpoint", "reference"):
        module = importlib.import_module("phi_model." + name if name != "phi_model" else name)
        assert any(test.examples for test in finder.find(module)), name
