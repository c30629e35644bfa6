"""STaR: a model teaches itself to reason from its own rationales that led to right answers.

Zelikman, Wu, Mu and Goodman 2022, arXiv:2203.14465. Each iteration: the model of the last one
answers new tasks; what is right is kept; failures are tried again at rising temperatures; what
still fails is rationalised with the answer as a hint; the base, not the last model, is fine-tuned
on all that was kept so far. Every step's result is on the disk before the next begins, so after a
kill the same call goes on to the same end.

>>> run_star("runs/star", StarConfig(seed=1))  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

from phi_model import LanguageModel, ModelConfig, build_model, load_checkpoint
from phi_model.files import atomic_write
from phi_tokenizer import Tokenizer
from phi_train.improve.bootstrap import paired_bootstrap
from phi_train.improve.checker import check
from phi_train.improve.example_log import Example
from phi_train.improve.fit import FitSettings, fit
from phi_train.improve.pause import Pause
from phi_train.improve.rows import END_OF_TEXT, Row, make_row
from phi_train.improve.speaker import Speaker, seed_of
from phi_train.improve.star_config import StarConfig
from phi_train.improve.task import Task, tasks
from phi_train.improve.work_folder import WorkFolder

__all__ = ["Star", "run_star"]

Tell = Callable[[str, int, int, str], None]

CHUNK = 64  # tasks between two places where a resume can begin
TOKENIZER_TASKS = 2000
VOTE_TEMPERATURE = 0.8
KNOWN, HELD_OUT, NEW = 1, 2, 3  # streams of tasks: the few given, those to measure on, the rest


def run_star(
    path: str | os.PathLike[str],
    config: StarConfig,
    *,
    workers: int = 1,
    pause: Pause | None = None,
    tell: Tell = lambda *_: None,
) -> dict[str, Any]:
    """The whole experiment in one folder; its results, also in results.json.

    tell(stage, done, of, note) as it goes. Raises Stopped when `pause` says so, RunError for a
    folder of other settings.
    """
    star = Star(path, config, workers=workers, pause=pause or Pause(), tell=tell)
    try:
        star.prepare()
        star.improve()
        if config.comparisons:
            star.compare()
        return star.results()
    finally:
        star.folder.close()


class Star:
    """The stages, each of which is skipped when its result is there."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: StarConfig,
        *,
        workers: int,
        pause: Pause,
        tell: Tell,
    ) -> None:
        self.config, self._workers, self._pause, self._tell = config, workers, pause, tell
        self.folder = WorkFolder(path, asdict(config) | {"method": "star", "workers": workers})
        self.measured: dict[str, dict[str, Any]] = {}

    # what there is before the first iteration

    def prepare(self) -> None:
        """Tasks, tokenizer, base, and how good the base is."""
        c = self.config
        self.known = self._tasks("train", KNOWN, c.rationales)
        self.development = self._tasks("development", HELD_OUT, c.development)
        self.test = self._tasks("test", HELD_OUT, c.test)
        self.tokenizer = self._tokenizer()
        self._stage("base", 0, c.base_steps)
        model = self._new_model()
        few = self._few()
        stories = tasks(seed=seed_of(c.seed, "stories"), events=c.events, side="train")
        told = [make_row(self.tokenizer, "", t.story) for t in islice(stories, c.stories)]
        rows = told + few * max(1, len(told) // len(few))
        self._fit("base", model, rows, steps=c.base_steps, rate=c.base_learning_rate)
        self._measure("base", model)

    def _tasks(self, side: str, stream: int, number: int) -> list[Task]:
        seed = seed_of(self.config.seed, side, stream)
        return list(islice(tasks(seed=seed, events=self.config.events, side=side), number))

    def _tokenizer(self) -> Tokenizer:
        path = self.folder.path / "tokenizer.json"
        if not path.exists():
            some = self._tasks("train", NEW, TOKENIZER_TASKS)
            made = Tokenizer.train(
                [t.hinted + t.completion for t in some],
                vocab_size=self.config.vocab_size,
                special_tokens=[END_OF_TEXT],
            )
            with atomic_write(path) as file:
                file.write(made.to_bytes())
        return Tokenizer.load(path)

    def _new_model(self) -> LanguageModel:
        shape = ModelConfig.preset(
            self.config.preset, vocab_size=self.tokenizer.n_vocab, seq_len=self.config.seq_len
        )
        return build_model(shape, seed=self.config.seed)

    def _few(self) -> list[Row]:
        """The given rationales, with and without a hint before them."""
        rows = [make_row(self.tokenizer, t.prompt, t.completion) for t in self.known]
        return rows + [make_row(self.tokenizer, t.hinted, t.completion) for t in self.known]

    # the loop

    def improve(self) -> None:
        """Every iteration: samples, fine-tuning from the base, measurement."""
        self._iterate("star", self._try_hard)

    def _iterate(self, arm: str, attempt: Callable[..., list[Example]]) -> None:
        previous = "base"
        for i in range(1, self.config.iterations + 1):
            name = f"{arm}-{i}"
            for chunk, some in enumerate(self._new_tasks(i)):
                group = f"{name}/{chunk:04d}"
                if self.folder.examples.get(group) is None:
                    self._stage(f"{name} samples", chunk * CHUNK, self.config.tasks)
                    speak = self._speaker(previous)
                    self.folder.examples.add(group, attempt(speak, some, group))
            model = self._model("base")
            self._fit(name, model, self._few() + self._kept(arm, i), steps=self.config.steps)
            self._measure(name, model)
            previous = name

    def _new_tasks(self, iteration: int) -> Iterator[list[Task]]:
        """An iteration's tasks in chunks, the same for every arm."""
        found = self._tasks("train", NEW + iteration, self.config.tasks)
        for start in range(0, len(found), CHUNK):
            yield found[start : start + CHUNK]

    def _try_hard(self, speak: Speaker, some: Sequence[Task], group: str) -> list[Example]:
        """Greedy, then retries of what failed, then with the answer as a hint."""
        made = []
        left = list(some)
        for temperature in (0.0, *self.config.temperatures):
            tried = self._try(speak, left, group, temperature=temperature)
            made += tried
            left = [task for task, one in zip(left, tried, strict=True) if not one["right"]]
        return made + self._try(speak, left, group, hint=True)

    def _try_once(self, speak: Speaker, some: Sequence[Task], group: str) -> list[Example]:
        """Greedy, everything kept: nobody looks at the answers."""
        return [one | {"kept": True} for one in self._try(speak, some, group)]

    def _try(
        self,
        speak: Speaker,
        some: Sequence[Task],
        group: str,
        *,
        temperature: float = 0.0,
        hint: bool = False,
    ) -> list[Example]:
        """One completion of each task, checked."""
        self._pause.point()
        prompts = [task.hinted if hint else task.prompt for task in some]
        told = speak(
            prompts,
            max_tokens=self.config.max_tokens,
            temperature=temperature,
            seed=seed_of(self.config.seed, group, temperature, hint),
        )
        how = "hint" if hint else f"temperature {temperature:g}"
        return [_judged(task, text, how) for task, text in zip(some, told, strict=True)]

    def _kept(self, arm: str, iteration: int) -> list[Row]:
        """All that iterations so far have kept; the hint is left out of what is learnt from."""
        kept = []
        for i in range(1, iteration + 1):
            for one in self.folder.examples.of(f"{arm}-{i}/"):
                if one["kept"]:
                    prompt = f"{one['story']}\nQuestion: {one['question']}\nThink:"
                    kept.append(make_row(self.tokenizer, prompt, one["completion"]))
        return kept

    # what it is compared with

    def compare(self) -> None:
        """Unverified samples; the given rationales for as many steps more; answers without any
        rationale; and majorities of samples.
        """
        c = self.config
        self._iterate("unverified", self._try_once)
        model = self._model("base")
        self._fit("few", model, self._few(), steps=c.steps)
        self._measure("few", model)
        every = [t for i in range(1, c.iterations + 1) for some in self._new_tasks(i) for t in some]
        rows = [make_row(self.tokenizer, t.direct, f" {t.answer}") for t in self.known + every]
        model = self._model("base")
        self._fit("direct", model, rows, steps=c.steps)
        self._measure("direct", model, direct=True)
        for name in ("base", self._best()):
            self._vote(name)

    def _vote(self, name: str) -> None:
        """The answer that most of a few samples give; of equals, the first one given."""
        speak = None
        examples: list[Example] = []
        for start in range(0, len(self.test), CHUNK):
            group = f"majority of {name}/{start:05d}"
            found = self.folder.examples.get(group)
            if found is None:
                speak = speak or self._speaker(name)
                self._stage(f"majority of {name}", start, len(self.test))
                some = self.test[start : start + CHUNK]
                rounds = [
                    self._try(speak, some, f"{group} {vote}", temperature=VOTE_TEMPERATURE)
                    for vote in range(self.config.votes)
                ]
                found = [_majority(votes) for votes in zip(*rounds, strict=True)]
                self.folder.examples.add(group, found)
            examples += found
        self.measured[f"majority of {name}"] = _accuracy(examples)

    # measurements, training, models

    def _measure(self, name: str, model: LanguageModel, *, direct: bool = False) -> None:
        """Greedy answers to all development and test tasks, kept as examples are."""
        speak = Speaker(model, self.tokenizer.to_bytes(), workers=self._workers)
        found = {}
        for side, some in (("development", self.development), ("test", self.test)):
            examples: list[Example] = []
            for start in range(0, len(some), CHUNK):
                group = f"{side} of {name}/{start:05d}"
                done = self.folder.examples.get(group)
                if done is None:
                    self._stage(f"{side} of {name}", start, len(some))
                    part = some[start : start + CHUNK]
                    done = self._answers(speak, part) if direct else self._try(speak, part, group)
                    self.folder.examples.add(group, done)
                examples += done
            found[side] = examples
        self.measured[name] = _accuracy(found["test"]) | {
            "development": sum(e["right"] for e in found["development"]) / len(self.development)
        }
        self._tell(f"{name}: {self.measured[name]['accuracy']:.1%} of the test tasks", 1, 1, "")

    def _answers(self, speak: Speaker, some: Sequence[Task]) -> list[Example]:
        """Answers at once, put where a rationale would end."""
        self._pause.point()
        told = speak([t.direct for t in some], max_tokens=16, temperature=0.0, seed=0)
        return [
            _judged(t, f"\nAnswer: {text.removeprefix(' ')}", "direct")
            for t, text in zip(some, told, strict=True)
        ]

    def _fit(
        self,
        name: str,
        model: LanguageModel,
        rows: Sequence[Row],
        *,
        steps: int,
        rate: float | None = None,
    ) -> None:
        c = self.config
        settings = FitSettings(
            steps=steps,
            batch_size=c.batch_size,
            learning_rate=rate or c.learning_rate,
            workers=self._workers,
        )
        fit(
            model,
            rows,
            settings,
            seed=seed_of(c.seed, name),
            path=self.folder.model(name),
            tokenizer=self.tokenizer.to_bytes(),
            pause=self._pause,
            tell=lambda step, of, loss: self._tell(f"training {name}", step, of, f"{loss:.3f}"),
        )

    def _model(self, name: str) -> LanguageModel:
        return load_checkpoint(self.folder.model(name)).build()

    def _speaker(self, name: str) -> Speaker:
        return Speaker(self._model(name), self.tokenizer.to_bytes(), workers=self._workers)

    def _stage(self, name: str, done: int, of: int) -> None:
        self._tell(name, done, of, "")

    # results

    def _best(self) -> str:
        """The iteration that did best on the development tasks, the first of equals."""
        names = [f"star-{i}" for i in range(1, self.config.iterations + 1)]
        return max(names, key=lambda name: self.measured[name]["development"])

    def results(self) -> dict[str, Any]:
        """Accuracies by arm, the paired interval over the base; written to results.json."""
        best = self._best()
        right = {
            name: [e["right"] for e in self.folder.examples.of(f"test of {name}/")]
            for name in self.measured
            if not name.startswith("majority")
        }
        over_base = {
            name: asdict(paired_bootstrap(values, right["base"]))
            for name, values in right.items()
            if name != "base"
        }
        kept = {
            f"{arm}-{i}": _tally(self.folder.examples.of(f"{arm}-{i}/"))
            for arm in ("star", "unverified")
            for i in range(1, self.config.iterations + 1)
            if f"{arm}-{i}" in self.measured
        }
        values = {
            "best": best,
            "test_tasks": len(self.test),
            "measured": self.measured,
            "over_base": over_base,
            "samples": kept,
        }
        self.folder.write("results.json", values)
        return values


def _judged(task: Task, text: str, how: str) -> Example:
    verdict = check(task.story, task.question, text)
    return {
        "story": task.story,
        "question": task.question,
        "truth": task.answer,
        "kind": task.kind,
        "events": task.events,
        "how": how,
        "completion": text,
        "answer": verdict.answer,
        "right": verdict.right,
        "sound": verdict.sound,
        "kept": verdict.right,
    }


def _majority(votes: Sequence[Example]) -> Example:
    counts = Counter(vote["answer"] for vote in votes if vote["answer"] is not None)
    answer = counts.most_common(1)[0][0] if counts else None
    chosen = next((vote for vote in votes if vote["answer"] == answer), votes[0])
    return chosen | {
        "how": f"majority of {len(votes)}",
        "completions": [v["completion"] for v in votes],
    }


def _accuracy(examples: Sequence[Example]) -> dict[str, Any]:
    """Shares of right answers: of all, by events, by kind; sound: of the right, with a true
    rationale.
    """
    right = [e for e in examples if e["right"]]

    def shares(key: str) -> dict[str, float]:
        values = sorted({e[key] for e in examples})
        return {
            str(v): sum(e["right"] for e in examples if e[key] == v)
            / sum(e[key] == v for e in examples)
            for v in values
        }

    return {
        "accuracy": len(right) / len(examples),
        "sound": sum(e["sound"] for e in right) / max(1, len(right)),
        "by_events": shares("events"),
        "by_kind": shares("kind"),
    }


def _tally(examples: Sequence[Example]) -> dict[str, dict[str, int]]:
    """How many were made, right and sound, by the way in which they were made."""
    found: dict[str, dict[str, int]] = {}
    for one in examples:
        row = found.setdefault(one["how"], {"made": 0, "right": 0, "sound": 0, "kept": 0})
        row["made"] += 1
        for name in ("right", "sound", "kept"):
            row[name] += int(one[name])
    return found
