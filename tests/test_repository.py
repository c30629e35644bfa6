"""The five packages as one: equal versions, declared imports, pure Python, files in their place."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("PHI_ROOT", Path(__file__).resolve().parent.parent))
PACKAGES = ("tokenizer", "model", "optim", "infer", "train")
ARROWS = {
    "tokenizer": set(),
    "model": set(),
    "optim": set(),
    "infer": {"tokenizer", "model"},
    "train": {"tokenizer", "model", "optim", "infer"},
}
COMPILED_ON_PURPOSE = {"numpy", "msgpack"}  # Termux and the boards' systems ship both


def project(package: str) -> dict:
    text = (ROOT / "packages" / f"phi-{package}" / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["project"]


def distribution_name(requirement: str) -> str:
    return re.split(r"[ ;<>=!~\[(]", requirement)[0].lower().replace("_", "-")


def source_files(package: str) -> list[Path]:
    return sorted((ROOT / "packages" / f"phi-{package}" / "src").rglob("*.py"))


def test_all_versions_and_pins_are_equal():
    versions = {package: project(package)["version"] for package in PACKAGES}
    assert len(set(versions.values())) == 1, versions
    version = versions["model"]
    for package in PACKAGES:
        init = ROOT / "packages" / f"phi-{package}" / "src" / f"phi_{package}" / "__init__.py"
        assert f'__version__ = "{version}"' in init.read_text(encoding="utf-8")
        pins = [r for r in project(package)["dependencies"] if r.startswith("phi-")]
        assert pins == [f"{r.split('==')[0]}=={version}" for r in pins]
    assert re.search(
        rf"^## \[(Unreleased|{re.escape(version)})\]",
        (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_siblings_follow_the_arrows(package):
    pins = {r.split("==")[0] for r in project(package)["dependencies"] if r.startswith("phi-")}
    assert pins == {f"phi-{sibling}" for sibling in ARROWS[package]}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_is_declared(package):
    declared = {distribution_name(r) for r in project(package)["dependencies"]}
    for extra in project(package).get("optional-dependencies", {}).values():
        declared |= {distribution_name(r) for r in extra}
    allowed = {name.replace("-", "_") for name in declared} | {f"phi_{package}"}
    if "typer" in declared:
        allowed.add("rich")  # typer depends on it and documents that
    for path in source_files(package):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                assert top in sys.stdlib_module_names or top in allowed, f"{path} imports {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_source_file_pickles_or_evaluates(package):
    for path in source_files(package):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                assert not {"pickle", "marshal", "shelve"} & set(names), path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, path


def core_closure() -> set[str]:
    """Every distribution that the five packages bring when installed without extras."""
    todo, seen = [f"phi-{package}" for package in PACKAGES], set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for requirement in importlib.metadata.requires(name) or []:
            marker = requirement.partition(";")[2]
            if "extra" not in marker and "win32" not in marker and "Windows" not in marker:
                todo.append(distribution_name(requirement))
    return seen


def compiled_files(name: str) -> list[str]:
    endings = (".so", ".pyd", ".dll", ".dylib", ".a")
    files = importlib.metadata.distribution(name).files or []
    return [str(file) for file in files if file.name.endswith(endings) or ".so." in file.name]


def test_the_core_is_pure_python_but_for_numpy_and_msgpack():
    closure = core_closure()
    assert {"numpy", "msgpack", "typer", "rich"} <= closure
    compiled = {name: compiled_files(name) for name in closure}
    assert {name for name, files in compiled.items() if files} <= COMPILED_ON_PURPOSE, compiled
    assert compiled["numpy"], "this test would not see a compiled file"


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_complete(package):
    folder = ROOT / "packages" / f"phi-{package}"
    for name in ("README.md", "LICENSE", f"src/phi_{package}/py.typed"):
        assert (folder / name).exists(), name
    assert len((folder / "README.md").read_text(encoding="utf-8")) > 500
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    lines = (ROOT / "siblings.txt").read_text(encoding="utf-8").splitlines()
    assert f"phi-{package} @ file://${{PHI_ROOT}}/packages/phi-{package}" in lines


def test_bump_changes_every_version(tmp_path):
    for name in ("packages", "scripts"):
        ignore = shutil.ignore_patterns("tests", "__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    shutil.copy(ROOT / "CHANGELOG.md", tmp_path)
    subprocess.run([sys.executable, tmp_path / "scripts/bump.py", "7.8.9"], check=True)
    for package in PACKAGES:
        text = (tmp_path / f"packages/phi-{package}/pyproject.toml").read_text(encoding="utf-8")
        assert 'version = "7.8.9"' in text
        assert project(package)["version"] not in re.findall(r'"phi-\w+==([^"]+)"', text)
    assert "## [7.8.9]" in (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8")
    bad = subprocess.run(
        [sys.executable, tmp_path / "scripts/bump.py", "seven"], check=False, capture_output=True
    )
    assert bad.returncode != 0


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_builds_an_sdist_and_a_wheel(package, tmp_path):
    source = ROOT / "packages" / f"phi-{package}"
    command = [sys.executable, "-m", "build", "--outdir", tmp_path, source]
    subprocess.run(command, check=True, capture_output=True)
    built = sorted(path.name for path in tmp_path.iterdir())
    version = project(package)["version"]
    assert built == [
        f"phi_{package}-{version}-py3-none-any.whl",
        f"phi_{package}-{version}.tar.gz",
    ]
