"""The texts that the tokenizers are measured on."""

import glob
import gzip
import random
import sysconfig
from pathlib import Path

HARD_SOURCES = 12_000_000
HARD_OTHERS = 4_000_000
OTHERS = (
    "/usr/share/man/**/*.gz",
    "/usr/share/i18n/locales/*",
    "/usr/share/doc/**/*",
    "/usr/share/perl/**/*.pod",
    "/usr/share/common-licenses/*",
    "/usr/share/zoneinfo/*.tab",
    "/usr/share/misc/*",
)


def stories(path: Path) -> list[str]:
    """The documents of a file, ended by `<|endoftext|>`."""
    parts = path.read_text("utf-8").split("<|endoftext|>")
    return [part.strip() for part in parts if part.strip()]


def hard() -> list[str]:
    """Python's standard library, then manuals, locales and documentation on this machine."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    sources = [p for p in folder.rglob("*.py") if "site-packages" not in p.parts]
    others = [Path(name) for pattern in OTHERS for name in glob.glob(pattern, recursive=True)]
    return _take(sources, HARD_SOURCES) + _take(others, HARD_OTHERS)


def _take(paths: list[Path], size: int) -> list[str]:
    """Texts of files in a fixed random order, up to a size in characters."""
    paths = sorted(set(paths))
    random.Random(0).shuffle(paths)
    texts: list[str] = []
    total = 0
    for path in paths:
        try:
            data = path.read_bytes()
            text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        except (OSError, UnicodeDecodeError, EOFError):
            continue
        if not 0 < len(text) < 500_000:
            continue
        texts.append(text)
        total += len(text)
        if total >= size:
            break
    return texts
