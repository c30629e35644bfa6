"""SPIN: a model learns to prefer real continuations to its own, again and again.

Chen, Deng, Yuan, Ji and Gu 2024, arXiv:2401.01335. Each iteration: the last model continues
prompts of real texts; the next one begins as that model and is trained to tell the real
continuation from the generated one, with the last model frozen as the reference.

>>> run_spin("runs/spin", SpinConfig(checkpoint="best.phi"))  # doctest: +SKIP
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi_model import LanguageModel, build_model, load_checkpoint, save_checkpoint
from phi_tokenizer import Tokenizer
from phi_train.corpus import BUILTIN, open_corpus
from phi_train.errors import ConfigError, DataError
from phi_train.evaluate import evaluate
from phi_train.improve.example_log import Example
from phi_train.improve.fit import FitSettings, fit_by
from phi_train.improve.pause import Pause
from phi_train.improve.rows import END_OF_TEXT, Row, widest
from phi_train.improve.speaker import Speaker, seed_of
from phi_train.improve.spin_loss import row_log_probs, spin_loss_and_grad
from phi_train.improve.text_measures import classifier_accuracy, distinct, divergence, repetition
from phi_train.improve.work_folder import WorkFolder
from phi_train.tokens import encode_documents

__all__ = ["SpinConfig", "run_spin"]

Array = NDArray[Any]
Tell = Callable[[str, int, int, str], None]

CHUNK = 64  # pairs between two places where a resume can begin
PAIRS_AT_ONCE = 16  # whose log-probabilities are taken in one pass
PREFERS = ("own", "real")


@dataclass(frozen=True, kw_only=True)
class SpinConfig:
    """Raises ConfigError for numbers that make no sense."""

    checkpoint: str  # a .phi file with its tokenizer
    data: str = BUILTIN  # real texts
    valid: str = ""
    seed: int = 0
    iterations: int = 3
    pairs: int = 1024  # of each iteration
    prompt_words: int = 12
    max_tokens: int = 64  # of a continuation, real or generated
    temperature: float = 1.0  # the model's own distribution: what the theory is about
    scale: float = 0.1  # lambda
    steps: int = 200
    batch_size: int = 8  # pairs
    learning_rate: float = 1e-4
    held_out: int = 256  # pairs to measure on
    valid_documents: int = 300  # whose bits a byte are measured

    def __post_init__(self) -> None:
        names = ("iterations", "pairs", "prompt_words", "max_tokens", "steps", "batch_size")
        for name in (*names, "valid_documents"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self.held_out < 2:
            raise ConfigError(f"held_out is {self.held_out}; it must be 2 or more")
        if not self.scale > 0 or not self.temperature > 0:
            raise ConfigError(
                f"scale is {self.scale} and temperature {self.temperature}; both must be above 0"
            )


def run_spin(
    path: str | os.PathLike[str],
    config: SpinConfig,
    *,
    workers: int = 1,
    pause: Pause | None = None,
    tell: Tell = lambda *_: None,
) -> dict[str, Any]:
    """The whole experiment in one folder; its results, also in results.json.

    Raises Stopped when `pause` says so, RunError for a folder of other settings.
    """
    spin = _Spin(path, config, workers, pause or Pause(), tell)
    try:
        return spin.run()
    finally:
        spin.folder.close()


def _checksum(texts: Any) -> int:
    return zlib.crc32(json.dumps(texts).encode())


class _Spin:
    """The stages, each of which is skipped when its result is there."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: SpinConfig,
        workers: int,
        pause: Pause,
        tell: Tell,
    ) -> None:
        self.config, self._workers, self._pause, self._tell = config, workers, pause, tell
        begun = Path(path) / "base.phi"  # a copy: the other file may be trained on
        start = load_checkpoint(begun if begun.exists() else config.checkpoint)
        if start.tokenizer is None:
            raise ConfigError(f"{config.checkpoint} holds no tokenizer, so it cannot read text")
        self._tokenizer_bytes = start.tokenizer
        self.tokenizer = Tokenizer.from_bytes(start.tokenizer)
        if END_OF_TEXT not in self.tokenizer.special_tokens:
            raise ConfigError(f"the tokenizer of {config.checkpoint} has no {END_OF_TEXT}")
        self._end = self.tokenizer.special_tokens[END_OF_TEXT]
        corpus = open_corpus(config.data, config.valid)
        self._train = self._parts(corpus.train, config.pairs * config.iterations)
        self._held_out = self._parts(corpus.valid, config.held_out)
        self._valid = encode_documents(corpus.valid[: config.valid_documents], self.tokenizer)
        texts = [self._train, self._held_out, corpus.valid[: config.valid_documents]]
        facts = {"method": "spin", "workers": workers, "checksum_of_texts": _checksum(texts)}
        self.folder = WorkFolder(path, asdict(config) | facts)
        if not self.folder.model("base").exists():
            save_checkpoint(self.folder.model("base"), start.model, tokenizer=start.tokenizer)

    def _parts(self, texts: Sequence[str], number: int) -> list[tuple[str, str]]:
        """(prompt, continuation) of the first texts that are long enough."""
        found = []
        for text in texts:
            words = text.split(" ")
            if len(words) > self.config.prompt_words:
                prompt = " ".join(words[: self.config.prompt_words])
                found.append((prompt, text[len(prompt) :]))
            if len(found) == number:
                return found
        raise DataError(
            f"{self.config.data} has {len(found)} texts of more than {self.config.prompt_words} "
            f"words, {number} are needed: give more text, fewer pairs or a shorter prompt"
        )

    def run(self) -> dict[str, Any]:
        """Every iteration: continuations, training against the last model, measurement."""
        base = self.model("base")
        measured = {"base": self.measure("base", base, base)}
        for i in range(1, self.config.iterations + 1):
            frozen = self.model(f"spin-{i - 1}" if i > 1 else "base")
            model = self.train(f"spin-{i}", frozen)
            measured[f"spin-{i}"] = self.measure(f"spin-{i}", model, frozen)
        results = {"measured": measured, "held_out_pairs": self.config.held_out}
        self.folder.write("results.json", results)
        return results

    def model(self, name: str) -> LanguageModel:
        """A model of this folder; "base" is the one it began with."""
        return load_checkpoint(self.folder.model(name)).build()

    # pairs

    def _pairs(
        self, group: str, model: LanguageModel, parts: list[tuple[str, str]]
    ) -> list[Example]:
        """Each prompt with the real and the model's own continuation, as ids and as text."""
        speak = None
        made: list[Example] = []
        for start in range(0, len(parts), CHUNK):
            name = f"{group}/{start:05d}"
            found = self.folder.examples.get(name)
            if found is None:
                self._pause.point()
                self._tell(f"{group}: continuations", start, len(parts), "")
                speak = speak or Speaker(model, self._tokenizer_bytes, workers=self._workers)
                some = parts[start : start + CHUNK]
                found = self._continued(speak, some, seed_of(self.config.seed, name))
                self.folder.examples.add(name, found)
            made += found
        return made

    def _continued(
        self, speak: Speaker, parts: Sequence[tuple[str, str]], seed: int
    ) -> list[Example]:
        c = self.config
        longest = max(len(speak.generator.prompt_ids(prompt)) for prompt, _ in parts)
        if longest + c.max_tokens > speak.generator.config.seq_len:
            raise ConfigError(
                f"a prompt has {longest} tokens and max_tokens is {c.max_tokens}: together more "
                f"than the model's context of {speak.generator.config.seq_len}; lower max_tokens"
            )
        told = speak.generator.complete_batch(
            [prompt for prompt, _ in parts],
            max_tokens=c.max_tokens,
            temperature=c.temperature,
            seed=seed,
            workers=min(self._workers, len(parts)),
        )
        examples = []
        for (prompt, rest), own in zip(parts, told, strict=True):
            real = [int(i) for i in self.tokenizer.encode(rest)] + [self._end]
            ids = own.ids + [self._end] * (own.finish == "end")
            examples.append(
                {
                    "prompt": prompt,
                    "real": rest,
                    "own": own.text,
                    "given_ids": speak.generator.prompt_ids(prompt),
                    "real_ids": real[: c.max_tokens],
                    "own_ids": ids[: c.max_tokens],
                }
            )
        return examples

    def _rows(self, examples: Sequence[Example], side: str) -> list[Row]:
        return [Row((*e["given_ids"], *e[f"{side}_ids"]), len(e["given_ids"])) for e in examples]

    def _log_probs(self, model: LanguageModel, rows: Sequence[Row]) -> Array:
        """log p of every row's continuation [n], a few at a time."""
        parts = []
        for start in range(0, len(rows), PAIRS_AT_ONCE):
            self._pause.point()
            parts.append(row_log_probs(model, rows[start : start + PAIRS_AT_ONCE]))
        return np.concatenate(parts)

    # training

    def train(self, name: str, frozen: LanguageModel) -> LanguageModel:
        """The next iterate, beginning as a copy of the frozen one."""
        c = self.config
        number = int(name.removeprefix("spin-")) - 1
        model = build_model(frozen.config)
        model.parameters.assign(dict(frozen.parameters))
        parts = self._train[number * c.pairs : (number + 1) * c.pairs]
        path = self.folder.model(name)
        pairs = self._pairs(name, frozen, parts)
        real, own = self._rows(pairs, "real"), self._rows(pairs, "own")
        reference = np.empty((2, 0))
        if not path.exists():
            reference = np.stack([self._log_probs(frozen, real), self._log_probs(frozen, own)])

        def gradient(step: int) -> float:
            chosen = self._batch(name, step)
            return spin_loss_and_grad(
                model,
                [real[i] for i in chosen],
                [own[i] for i in chosen],
                reference[:, chosen].ravel(),
                scale=c.scale,
            )[0]

        settings = FitSettings(
            steps=c.steps,
            batch_size=c.batch_size,
            learning_rate=c.learning_rate,
            weight_decay=0.0,  # the reference is where it should stay, not zero
            workers=self._workers,
        )
        fit_by(
            model,
            gradient,
            settings,
            shape=(2 * c.batch_size, widest([*real, *own])),
            path=path,
            tokenizer=self._tokenizer_bytes,
            pause=self._pause,
            tell=lambda step, of, loss: self._tell(f"training {name}", step, of, f"{loss:.4f}"),
        )
        return model

    def _batch(self, name: str, step: int) -> Array:
        """Numbers of the pairs of a step: epochs, each in an order of its own."""
        size = min(self.config.batch_size, self.config.pairs)
        epoch, part = divmod(step, self.config.pairs // size)
        rng = np.random.Generator(np.random.Philox(key=[seed_of(self.config.seed, name), epoch]))
        return rng.permutation(self.config.pairs)[part * size : (part + 1) * size]

    # measurement

    def measure(self, name: str, model: LanguageModel, frozen: LanguageModel) -> dict[str, Any]:
        """Of held-out texts. preference: how often the model raised the real continuation over
        the frozen one's own, both relative to the frozen model; of the base it means nothing.
        """
        self._tell(f"measuring {name}", 0, 1, "")
        made = self._pairs(f"held out of {name}", model, self._held_out)
        real_ids, own_ids = [e["real_ids"] for e in made], [e["own_ids"] for e in made]
        values: dict[str, Any] = {
            "bits_per_byte": evaluate(model, self._valid).bits_per_byte,
            "divergence": {str(n): divergence(real_ids, own_ids, n) for n in (1, 2, 3)},
            "classifier": classifier_accuracy(real_ids, own_ids, seed=self.config.seed),
            "distinct": {str(n): distinct(own_ids, n) for n in (1, 2, 3)},
            "distinct_real": {str(n): distinct(real_ids, n) for n in (1, 2, 3)},
            "repetition": repetition(own_ids, 4),
            "repetition_real": repetition(real_ids, 4),
            "preference": None,
        }
        if name != "base":
            before = "base" if name == "spin-1" else f"spin-{int(name[5:]) - 1}"
            rivals = self._pairs(f"held out of {before}", frozen, self._held_out)
            values |= self._preference(name, model, frozen, rivals)
        return values

    def _preference(
        self, name: str, model: LanguageModel, frozen: LanguageModel, pairs: list[Example]
    ) -> dict[str, Any]:
        rows = [*self._rows(pairs, "real"), *self._rows(pairs, "own")]
        gain = self._log_probs(model, rows) - self._log_probs(frozen, rows)
        margins = self.config.scale * (gain[: len(pairs)] - gain[len(pairs) :])
        group = f"verdicts of {name}"
        if self.folder.examples.get(group) is None:
            verdicts = [
                {"prompt": pair["prompt"], "margin": float(m), "prefers": PREFERS[bool(m > 0)]}
                for pair, m in zip(pairs, margins, strict=True)
            ]
            self.folder.examples.add(group, verdicts)
        return {"preference": float((margins > 0).mean()), "margin": float(margins.mean())}
