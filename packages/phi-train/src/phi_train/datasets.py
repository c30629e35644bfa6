"""Sources with a name that are downloaded once: what they consist of, and where they are kept.

The folder is $PHI_DATA, or phi/ in $XDG_CACHE_HOME, or ~/.cache/phi.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from phi_train.errors import ConfigError, DataError

__all__ = ["DATASETS", "TINYSTORIES", "Dataset", "data_folder", "dataset_file", "dataset_named"]

TINYSTORIES = "tinystories"
HUB = "https://huggingface.co/datasets/roneneldan/TinyStories/resolve/main/"


@dataclass(frozen=True)
class Dataset:
    """Two files of documents, one to train on and one to measure on."""

    name: str
    train: str  # a URL
    valid: str  # a URL


DATASETS = {
    TINYSTORIES: Dataset(  # Eldan and Li (2023), arXiv:2305.07759; the stories by GPT-4
        TINYSTORIES,
        HUB + "TinyStoriesV2-GPT4-train.txt",
        HUB + "TinyStoriesV2-GPT4-valid.txt",
    )
}


def data_folder() -> Path:
    """Where datasets are kept."""
    if given := os.environ.get("PHI_DATA"):
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "phi"


def dataset_named(name: str) -> Dataset:
    """The dataset `name`; ConfigError when there is none."""
    if name not in DATASETS:
        raise ConfigError(f"no dataset is called {name!r}; there is {', '.join(DATASETS)}")
    return DATASETS[name]


def dataset_file(name: str, *, held_out: bool) -> Path:
    """One side of a dataset on this machine; DataError when it was not downloaded yet."""
    dataset = dataset_named(name)
    url = dataset.valid if held_out else dataset.train
    path = data_folder() / name / url.rpartition("/")[2]
    if not path.exists():
        raise DataError(f"{name} is not in {path.parent} yet: run phi-train data fetch {name}")
    return path
