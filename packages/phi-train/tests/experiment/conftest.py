"""A search without training: outcomes from recorded noise, in any order one likes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phi_train.experiment import Outcome
from phi_train.experiment.experiment import experiment_of
from phi_train.experiment.search import Search

# bits a byte of 32 runs that differ in their seed alone (gpt-10k on the builtin stories, 120
# updates of 4 x 32 tokens), at a quarter, a half and all of their budget
NOISE = json.loads(Path(__file__).with_name("noise.json").read_text())
STAGE = {0.25: 0, 0.5: 1, 1.0: 2}


def make_experiment(tmp_path: Path, **search: Any) -> Any:
    values = {
        "id": "simulated",
        "question": "Q?",
        "hypothesis": "H.",
        "success": "S.",
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
