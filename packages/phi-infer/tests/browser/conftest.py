"""The browser of phi-train's tests and the servers of test_server, for the server's page."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

PACKAGES = Path(__file__).resolve().parents[3]


def _module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_browser = _module("phi_browser", PACKAGES / "phi-train" / "tests" / "browser" / "conftest.py")
_server = _module("phi_servers", PACKAGES / "phi-infer" / "tests" / "test_server" / "conftest.py")

pytest_configure, browser = _browser.pytest_configure, _browser.browser
models, start, wait_until_ = _server.models, _server.start, _server.wait_until_
