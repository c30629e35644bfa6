#!/usr/bin/env python3
"""Gives all five packages a new version: python scripts/bump.py 0.2.0

Rewrites every version, every pin of a sibling, and the head of CHANGELOG.md, whose section
"Unreleased" becomes the new version's. Changes nothing when anything is not as expected.
"""

from __future__ import annotations

import datetime
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("tokenizer", "model", "optim", "infer", "train")
VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")


def replaced(text: str, pattern: str, new: str, *, where: Path) -> str:
    """`text` with every match of `pattern` replaced; there must be one."""
    result, count = re.subn(pattern, new, text, flags=re.MULTILINE)
    if not count:
        raise SystemExit(f"bump: {where}: found nothing like {pattern!r}; nothing was changed")
    return result


def rewritten(version: str) -> dict[Path, str]:
    """Path -> new content of every file that carries the version."""
    files: dict[Path, str] = {}
    for name in PACKAGES:
        folder = ROOT / "packages" / f"phi-{name}"
        project = folder / "pyproject.toml"
        text = project.read_text(encoding="utf-8")
        text = replaced(text, r'^version = ".*"', f'version = "{version}"', where=project)
        files[project] = re.sub(r'"(phi-\w+)==[^"]+"', rf'"\1=={version}"', text)
        init = folder / "src" / f"phi_{name}" / "__init__.py"
        text = init.read_text(encoding="utf-8")
        files[init] = replaced(
            text, r'^__version__ = ".*"', f'__version__ = "{version}"', where=init
        )
    changelog = ROOT / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8")
    today = datetime.date.today().isoformat()
    head = f"## [Unreleased]\n\n## [{version}] - {today}"
    files[changelog] = replaced(text, r"^## \[Unreleased\]", head, where=changelog)
    return files


def main() -> None:
    """Checks the argument, works everything out, then writes."""
    if len(sys.argv) != 2 or not VERSION.fullmatch(sys.argv[1]):
        raise SystemExit("usage: python scripts/bump.py X.Y.Z")
    for path, text in rewritten(sys.argv[1]).items():
        path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {sys.argv[1]}")


if __name__ == "__main__":
    main()
