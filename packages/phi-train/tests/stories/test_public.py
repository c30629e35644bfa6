"""What the package offers is what it lists."""

import doctest
import importlib
import pkgutil

import pytest

from phi_train import stories

MODULES = sorted(m.name for m in pkgutil.walk_packages(stories.__path__, "phi_train.stories."))


def test_all_is_sorted_and_complete():
    # Constants, then classes, then functions, each in order: the formatter's rule.
    names = stories.__all__
    constants = sorted(n for n in names if n.isupper())
    classes = sorted(n for n in names if n[0].isupper() and not n.isupper())
    assert names == constants + classes + sorted(n for n in names if n.islower())
    assert all(hasattr(stories, name) for name in names)


@pytest.mark.parametrize("name", ["phi_train.stories", *MODULES])
def test_examples_in_docstrings_hold(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0
    assert module.__doc__
