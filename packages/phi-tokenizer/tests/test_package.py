"""What the package shows to the outside."""

import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import phi_tokenizer

SOURCE = Path(phi_tokenizer.__file__).parent
MODULES = [
    module.name
    for module in pkgutil.walk_packages([str(SOURCE)], "phi_tokenizer.")
    if not module.name.endswith("__main__")
]


def test_all_is_sorted_and_there() -> None:
    assert phi_tokenizer.__all__ == sorted(phi_tokenizer.__all__)
    for name in phi_tokenizer.__all__:
        assert hasattr(phi_tokenizer, name)


@pytest.mark.parametrize("name", MODULES)
def test_each_module(name: str) -> None:
    """A docstring, a sorted `__all__` of what is there, and examples that are true."""
    module = importlib.import_module(name)
    assert module.__doc__
    assert module.__all__ == sorted(module.__all__)
    for public in module.__all__:
        assert hasattr(module, public)
    assert doctest.testmod(module).failed == 0


def test_importing_is_light() -> None:
    code = (
        "import sys, phi_tokenizer; print([m for m in ('typer', 'rich', 'regex', 'click', "
        "'multiprocessing', 'concurrent.futures') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_no_class_of_a_character_is_taken_from_python() -> None:
    """Python's own Unicode tables differ between its versions."""
    forbidden = {"unicodedata", "isalpha", "isspace", "isalnum", "isnumeric"}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = {getattr(node, "id", None), getattr(node, "attr", None)}
            names |= {alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")}
            assert not names & forbidden, path


def test_errors_are_value_errors() -> None:
    for name in phi_tokenizer.__all__:
        if name.endswith("Error"):
            error = getattr(phi_tokenizer, name)
            assert issubclass(error, phi_tokenizer.TokenizerError)
            assert issubclass(error, ValueError)
            assert str(error("what to do")) == "what to do"
