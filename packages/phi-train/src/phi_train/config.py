"""Everything that decides a run, as one flat TOML file.

data = "stories.txt"
preset = "gpt-1m"
steps = 2000

[model]            # any field of phi_model.ModelConfig, over the preset's
rope_base = 10000.0
"""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from phi_model import ModelConfig
from phi_train.errors import ConfigError

__all__ = ["SCHEDULES", "TrainConfig", "default_learning_rate"]

SCHEDULES = ("warmup-stable-decay", "linear", "cosine", "constant")
OPTIMIZERS = ("adamw",)
AT_LEAST_ZERO = (
    "stories",
    "steps",
    "tokens",
    "flops",
    "learning_rate",
    "warmup_steps",
    "checkpoint_every",
    "seed",
)
AT_LEAST_ONE = ("batch_size", "seq_len", "grad_accum", "eval_every", "eval_tokens")
FINITE = ("flops", "learning_rate", "final_rate", "weight_decay", "beta1", "beta2")


def default_learning_rate(model: ModelConfig) -> float:
    """The peak for AdamW: 2e-3 up to 128 channels, above that inversely to the width.

    Swept over 1e-3, 2e-3, 3e-3, 4e-3 on gpt-1m, 2,000 steps of 4 x 128 tokens of TinyStories:
    2.758, 2.729, 2.749, 2.748 nats a token.
    """
    return 2e-3 * min(1.0, 128 / model.n_embd)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of one run. Exactly one budget is used: steps, unless tokens or flops is set.

    Raises ConfigError for a value that makes no sense.
    """

    data: str
    valid: str = ""  # empty: a part of data, chosen by hash of the document
    stories: int = 0  # to train on, when data is builtin; 0: as many as the budget sees once
    out: str = ""  # the run's folder; empty: runs/PRESET, numbered
    preset: str = "gpt-1m"
    tokenizer: str = ""  # a tokenizer.json; empty: one is trained on data
    vocab_size: int = 1024  # of the tokenizer to be trained, end token included
    seq_len: int = 128  # tokens
    batch_size: int = 4  # rows of seq_len tokens
    grad_accum: int = 1  # batches whose mean gradient makes one update
    steps: int = 2000  # updates
    tokens: int = 0  # instead of steps, when above 0
    flops: float = 0.0  # instead of steps, when above 0
    optimizer: str = "adamw"
    learning_rate: float = 0.0  # the peak; 0: default_learning_rate of the model's width
    schedule: str = "warmup-stable-decay"
    warmup_steps: int = 100
    final_rate: float = 0.02  # of the peak, at the last step
    weight_decay: float = 0.1  # matrices only
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0  # global norm of the gradient
    workers: str = "auto"  # or a number: how many share the rows of a batch
    seed: int = 0
    eval_every: int = 250  # steps
    eval_tokens: int = 16_384  # of the validation stream, from its start; the end measures all
    checkpoint_every: int = 500  # steps; 0: at the end only
    baselines: bool = True  # measure n-grams beside the model
    model: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.data:
            raise ConfigError("no data: name a text file or a folder with --data")
        self._check_numbers()
        if self.steps < 1 and not self.tokens and not self.flops:
            raise ConfigError("steps is 0 and no other budget is set: give --steps, 1 or more")
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(f"optimizer is {self.optimizer!r}; there is {', '.join(OPTIMIZERS)}")
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"schedule is {self.schedule!r}; there are {', '.join(SCHEDULES)}")
        if self.workers != "auto" and (not self.workers.isdecimal() or int(self.workers) < 1):
            raise ConfigError(f"workers is {self.workers!r}; it must be 'auto', or 1 or more")
        if self.workers != "auto" and int(self.workers) > self.batch_size:
            raise ConfigError(
                f"workers is {self.workers}, but a batch has only {self.batch_size} rows to share: "
                "raise batch_size, or lower workers"
            )

    def _check_numbers(self) -> None:
        for name in FINITE:
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be a finite number")
        for name in AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in AT_LEAST_ZERO:
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if self.seed >= 2**64:
            raise ConfigError(f"seed is {self.seed}; it must be below 2^64")
        if not self.clip > 0:
            raise ConfigError(f"clip is {self.clip}; it must be above 0 (inf: no clipping)")

    def model_config(self, vocab_size: int) -> ModelConfig:
        """The model's shape, for a tokenizer of `vocab_size` tokens."""
        changes = {"seq_len": self.seq_len, **self.model, "vocab_size": vocab_size}
        return ModelConfig.preset(self.preset, **changes)

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one update sees."""
        return self.batch_size * self.seq_len * self.grad_accum

    def total_steps(self, model: ModelConfig) -> int:
        """The budget in updates."""
        if self.tokens:
            return max(1, self.tokens // self.tokens_per_step)
        if self.flops:
            per_step = model.flops_per_token(self.seq_len) * self.tokens_per_step
            return max(1, int(self.flops // per_step))
        return self.steps

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """A config from plain values; names and types are checked."""
        kinds = {f.name: type(f.default) for f in fields(cls) if f.name not in ("data", "model")}
        kinds |= {"data": str, "model": dict}
        clean: dict[str, Any] = {}
        for name, value in values.items():
            kind = kinds.get(name)
            if kind is None:
                raise ConfigError(f"no setting is called {name!r}; there are {', '.join(kinds)}")
            if name == "workers" and type(value) is int:
                value = str(value)  # noqa: PLW2901 (a number is a fine TOML value here)
            if kind is float and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)  # noqa: PLW2901 (1 is a fine learning rate)
            if type(value) is not kind:
                raise ConfigError(f"{name} is {value!r}; it must be a {kind.__name__}")
            clean[name] = value
        if "data" not in clean:
            raise ConfigError("no data: name a text file or a folder with --data")
        return cls(**clean)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> dict[str, Any]:
        """The settings in a TOML file as plain values, to be completed by from_dict."""
        try:
            return tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not a TOML file: {error}") from error

    def to_toml(self) -> str:
        """The file that read() takes back."""
        values = asdict(self)
        model = values.pop("model")
        lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
        if model:
            lines += ["", "[model]", *(f"{name} = {_toml(value)}" for name, value in model.items())]
        return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """A TOML literal: JSON's strings, numbers and booleans are TOML's, but for infinity."""
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)
