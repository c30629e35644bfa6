"""The search that needs no file: 100 thousand parameters on the builtin stories, or on a text of
one's own. Its journal is in the work folder, and remembers how it was begun.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi_train.errors import ConfigError, RunError
from phi_train.experiment.experiment import Experiment, experiment_of
from phi_train.experiment.held_out import content_of, expanded
from phi_train.experiment.journal import Journal
from phi_train.experiment.mutate import STRATEGIES
from phi_train.experiment.run import WORK, alone
from phi_train.experiment.search import Search

__all__ = ["NAME", "builtin_search"]

NAME = "search"
PAGE = """
question = "Which settings teach 100 thousand parameters most for a fixed number of operations?"
hypothesis = "The defaults of phi-train are not the best ones for such a short run."
success = "A change is promoted: better by 0.01 bits a byte, again on other seeds and other text."
threshold = 0.01
[base]
data = "builtin"
stories = 4000
preset = "gpt-100k"
vocab_size = 512
seq_len = 64
batch_size = 8
flops = 8.2e10  # 200 updates of the baseline
warmup_steps = 40
eval_every = 1000000
sample_every = 0
groups_every = 0
checkpoint_every = 0
baselines = false
"""
BEGUN = {"seed": 0, "strategies": list(STRATEGIES), "data": "builtin", "valid": ""}


def builtin_search(
    work: str | os.PathLike[str] = WORK,
    *,
    settings: Mapping[str, Any] | None = None,
    sources: Mapping[str, str] | None = None,
    begin: bool = True,
) -> Experiment:
    """Begins the search, or goes on with it; a run takes a few seconds of one core.

    settings: of [search]. sources: data and valid. What is left out is as it was begun; only
    `trials` may change. begin: else RunError where there is none. Raises a PhiTrainError, and
    remembers nothing, for what makes no sense.
    """
    path = Path(work) / NAME / "journal.jsonl"
    lines = [line for line in Journal(path).lines if "search" in line]
    if not (lines or begin):
        raise RunError(f"no search was begun in {work}: phi-train experiment search --seconds 600")
    given = {**(settings or {}), **(sources or {})}
    begun = {**BEGUN, **lines[-1]["search"], **lines[-1].get("sources", {})} if lines else given
    for key, usual in BEGUN.items():
        if key in given and given[key] != begun.get(key, usual):
            raise ConfigError(
                f"{path} was begun with {key} {begun[key]!r}: leave the option out to go on, or "
                "give another --work"
            )
    now = {**BEGUN, **begun, **given}
    texts = {key: now.pop(key) for key in ("data", "valid")}
    experiment = _experiment(path, now, texts)
    if not lines or now != lines[-1]["search"]:
        Search(experiment)  # no mistake may be remembered
        for source in filter(None, texts.values()):
            content_of(expanded(source))
        with alone(path):
            Journal(path).note(search=now, sources=texts)  # who goes on, or reports, needs it
    return experiment


def _experiment(path: Path, settings: Mapping[str, Any], texts: Mapping[str, str]) -> Experiment:
    values = tomllib.loads(PAGE)
    if texts["data"] != BEGUN["data"]:
        del values["base"]["stories"]
    values["base"] |= {key: source for key, source in texts.items() if source}
    return experiment_of({**values, "id": NAME, "search": settings}, folder=Path(), journal=path)
