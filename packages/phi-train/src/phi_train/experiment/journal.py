"""The journal: a line of JSON for each trial that came to an end, on the disk at once.

The set of its lines is all that an experiment remembers. Their order says nothing: everything
else (which trial is next, what is kept) is worked out from them again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phi_train.experiment.experiment import Experiment
from phi_train.experiment.outcome import Outcome
from phi_train.experiment.trial import Result, Trial
from phi_train.json_lines import append, whole_objects
from phi_train.run_folder import naming

__all__ = ["Journal", "results_of"]


class Journal:
    """Outcomes by the key of their trial; of two with one key the last counts.

    A last line without its end, as a power cut leaves one, is ignored, and cut off before the
    next is written; so is any other line that is no JSON object, but it stays where it is.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.lines: list[dict[str, Any]] = list(whole_objects(self.path))
        self._outcomes: dict[str, Outcome] = {}
        for line in self.lines:
            if "key" in line:
                self._outcomes[line["key"]] = Outcome(**line["outcome"])

    def __len__(self) -> int:
        return len(self._outcomes)

    def get(self, key: str) -> Outcome | None:
        """The outcome of a trial; None where it has none yet."""
        return self._outcomes.get(key)

    def forget(self, states: Sequence[str]) -> None:
        """Outcomes of these states count no more, and may be written anew."""
        kept = {key: o for key, o in self._outcomes.items() if o.state not in states}
        self._outcomes = kept

    def add(self, trial: Trial, outcome: Outcome, **facts: Any) -> None:
        """Appends an outcome; returns when it is on the disk. facts: more to remember of it."""
        if trial.key in self._outcomes:
            return
        self._outcomes[trial.key] = outcome
        self.note(
            key=trial.key,
            arm=trial.arm,
            seed=trial.seed,
            part=trial.part,
            share=trial.share,
            settings=trial.settings,
            **facts,
            outcome=outcome.as_dict(),
        )

    def note(self, **values: Any) -> None:
        """Appends any other line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = (json.dumps(values) + "\n").encode()
        with naming(self.path), self.path.open("ab", buffering=0) as file:
            append(file, content, end=_end_of_whole_lines(self.path))
        self.lines.append(values)


def _end_of_whole_lines(path: Path) -> int:
    """Bytes up to the last line's end."""
    size = path.stat().st_size
    with path.open("rb") as file:
        position = size
        while position:
            start = max(0, position - 65536)
            file.seek(start)
            found = file.read(position - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            position = start
    return 0


def results_of(experiment: Experiment) -> list[Result]:
    """What the journal holds of the arms as the file has them now, by arm and then by seed.

    Needs neither data nor code of the trials. Where settings were measured on other data or by
    other code as well, the latest counts.
    """
    found: dict[tuple[str, int], Outcome] = {}
    for line in Journal(experiment.journal).lines:
        if "key" in line and line.get("share", 1.0) == experiment.share:
            found[line["settings"], line["seed"]] = Outcome(**line["outcome"])
    results = []
    for arm in experiment.arms:
        settings = experiment.settings(arm)
        for seed in experiment.seeds:
            if (outcome := found.get((settings, seed))) is not None:
                trial = Trial(
                    experiment=experiment.id,
                    arm=arm.name,
                    config=arm.config,
                    seed=seed,
                    part=experiment.held_out,
                    share=experiment.share,
                    settings=settings,
                )
                results.append(Result(trial, outcome))
    return results
