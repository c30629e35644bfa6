"""Pages, trials of a moment, and a search without training: outcomes from recorded noise, in any
order one likes.
"""

from __future__ import annotations

import json
import random
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phi_train.experiment import Experiment, Outcome, read_experiment
from phi_train.experiment.experiment import experiment_of
from phi_train.experiment.search import Search
from phi_train.experiment.toml import toml_table, toml_value

# bits a byte of 32 runs that differ in their seed alone (gpt-10k on the builtin stories, 120
# updates of 4 x 32 tokens), at a quarter, a half and all of their budget
NOISE = json.loads(Path(__file__).with_name("noise.json").read_text())
STAGE = {0.25: 0, 0.5: 1, 1.0: 2}
WORDS = {"question": "Q?", "hypothesis": "H.", "success": "S."}
TINY = {  # a run of phi-train of less than a second
    "preset": "gpt-1k",
    "vocab_size": 270,
    "seq_len": 16,
    "batch_size": 2,
    "warmup_steps": 4,
    "eval_every": 10000,
    "sample_every": 0,
    "baselines": False,
}


@pytest.fixture(scope="session")
def program() -> Path:
    """The command, as it is installed."""
    return Path(sysconfig.get_path("scripts")) / "phi-train"


@pytest.fixture(scope="session")
def tiny() -> Callable[..., str]:
    """[base] of a run of less than a second, with changes."""
    return lambda **changes: "\n".join([*toml_table("base", TINY | changes), ""])


@pytest.fixture
def page(tmp_path: Path) -> Callable[..., Experiment]:
    """Writes ID.toml, with words where the text has none, and ID.py where there is code."""

    def make(
        name: str, text: str, *, code: str = "", folder: Path = tmp_path, **words: str
    ) -> Experiment:
        path = folder / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        heads = {"id": name} | WORDS | words
        lines = [f"{word} = {toml_value(value)}" for word, value in heads.items()]
        path.write_text("\n".join([*lines, text]), encoding="utf-8")
        if code:
            path.with_suffix(".py").write_text(code, encoding="utf-8")
        return read_experiment(path)

    return make


@pytest.fixture
def texts(tmp_path: Path, stories: Callable[..., list[str]]) -> dict[str, str]:
    """data and valid, as files; each part of the held-out text has documents."""
    made = {"data": stories(60), "valid": stories(30, words=12, seed=9)}
    for name, documents in made.items():
        (tmp_path / f"{name}.txt").write_text("<|endoftext|>".join(documents), encoding="utf-8")
    return {name: str(tmp_path / f"{name}.txt") for name in made}


def make_experiment(tmp_path: Path, **search: Any) -> Any:
    values = {
        "id": "simulated",
        **WORDS,
        "threshold": search.pop("threshold", 0.01),
        "error_rate": search.pop("error_rate", 0.05),
        "base": {"data": "builtin", "preset": "gpt-10k", "steps": 200},
        "budget": search.pop("budget", {}),
        "search": search,
    }
    return experiment_of(values, folder=tmp_path, journal=tmp_path / "journal.jsonl")


def simulated(
    search: Search,
    *,
    seed: int = 0,
    effect: Callable[[str], float] = lambda _: 0.0,
    order: random.Random | None = None,
    known: dict[str, Outcome] | None = None,
    most: int = 1 << 30,
) -> dict[str, Outcome]:
    """Plays a search to its end, or for `most` trials. A run is one of the recorded ones, drawn
    by its own name and seed; order: which of the open trials comes in next, by chance.
    """
    known = {} if known is None else known
    made = 0
    while made < most and (trials := search.open_trials(known.get)):
        trial = order.choice(trials) if order else trials[0]
        run = random.Random(f"{seed}/{trial.arm}/{trial.seed}/{trial.part}").choice(NOISE)
        value = run[STAGE[trial.share]] + effect(trial.arm)
        known[trial.key] = Outcome(
            state="finished", metrics={"bits_per_byte": value}, steps=round(100 * trial.share)
        )
        made += 1
    return known


@pytest.fixture(scope="session")
def play() -> Callable[..., dict[str, Outcome]]:
    return simulated


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[..., Any]:
    return lambda **search: make_experiment(tmp_path, **search)
