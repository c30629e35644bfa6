"""Everything that decides a run, as one flat TOML file.

data = "stories.txt"
preset = "gpt-1m"
steps = 2000

[model]            # any field of phi_model.ModelConfig, over the preset's
rope_base = 10000.0
"""

from __future__ import annotations

import difflib
import json
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from phi_model import ModelConfig
from phi_optim import OPTIMIZERS
from phi_train.batches import KINDS
from phi_train.errors import ConfigError

__all__ = ["SCHEDULES", "TrainConfig", "default_learning_rate"]

SCHEDULES = ("warmup-stable-decay", "linear", "cosine", "constant")
BATCHES = tuple(KINDS)
AT_LEAST_ZERO = (
    *("stories", "steps", "tokens", "seconds", "flops", "learning_rate", "warmup_steps"),
    *("eval_tokens", "patience", "sample_every", "sample_tokens", "groups_every"),
    *("checkpoint_every", "seed"),
)
AT_LEAST_ONE = ("batch_size", "seq_len", "grad_accum", "eval_every", "keep")
KINDS_OF_VALUES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a table",
}
FINITE = (
    *("seconds", "flops", "learning_rate", "final_rate", "weight_decay", "beta1", "beta2", "ema"),
    *("guard_battery", "guard_heat", "guard_battery_heat", "guard_memory"),
)
MOST = 1_000_000  # rows, tokens of a row: no machine holds more
HIGHEST_ORDER = 5  # of the n-gram baselines
AVERAGING = "schedule-free"  # the optimiser that evaluates an average of its own
PEAK_RATES = {  # swept on gpt-1m by benchmarks/optimizer_comparison.py; best at 2,000 steps
    "adamw": 2e-3,
    "lion": 4e-4,
    "schedule-free": 4e-3,
    "muon": 4e-3,
    "sgd": 0.2,
}


def default_learning_rate(model: ModelConfig, optimizer: str) -> float:
    """The peak: what is best for 128 channels, above that inversely to the width."""
    return PEAK_RATES[optimizer] * min(1.0, 128 / model.n_embd)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of one run. Exactly one budget is used: steps, unless another one is set.

    Raises ConfigError for a value that makes no sense.
    """

    data: str
    valid: str = ""  # empty: a part of data, chosen by hash of the document
    stories: int = 0  # to train on, when data is builtin; 0: as many as the budget sees once
    out: str = ""  # the run's folder; empty: runs/PRESET, numbered
    preset: str = "gpt-1m"
    init_from: str = ""  # a checkpoint whose weights, shape and tokenizer the run begins with
    tokenizer: str = ""  # a tokenizer.json; empty: one is trained on data
    vocab_size: int = 1024  # of the tokenizer to be trained, end token included
    seq_len: int = 128  # tokens
    batches: str = "random"  # windows; or "epochs", without repeats, or "streams", in order
    batch_size: int = 4  # rows of seq_len tokens
    grad_accum: int = 1  # batches whose mean gradient makes one update
    steps: int = 2000  # updates
    tokens: int = 0  # instead of steps, when above 0
    flops: float = 0.0  # instead of steps, when above 0
    seconds: float = 0.0  # of training, instead of steps, when above 0
    optimizer: str = "schedule-free"  # the least loss in the same seconds: docs/optimizers.md
    learning_rate: float = 0.0  # the peak; 0: the optimiser's own, less for wide models
    schedule: str = ""  # empty: the one that the optimiser is meant for
    warmup_steps: int = 100
    final_rate: float = 0.02  # of the peak, at the last step
    weight_decay: float = -1.0  # matrices only; below 0: the optimiser's own
    beta1: float = -1.0  # both, or neither: below 0 are the optimiser's own
    beta2: float = -1.0
    clip: float = 1.0  # global norm of the gradient
    ema: float = 0.0  # decay of a moving average of the weights, e.g. 0.999; 0: none is kept
    workers: str = "auto"  # or a number: how many share the rows of a batch
    seed: int = 0
    eval_every: int = 250  # steps
    eval_tokens: int = 16_384  # of the validation stream, from its start; 0: all of it
    patience: int = 0  # evaluations without a better one until the run ends; 0: never
    checkpoint_every: int = 500  # steps; 0: at the end only
    keep: int = 3  # numbered checkpoints
    sample_every: int = 500  # steps; 0: no samples
    sample_tokens: int = 60
    prompt: str = ""  # of the samples
    groups_every: int = 100  # steps between measurements of each layer's gradient; 0: never
    baselines: bool = True  # measure n-grams beside the model
    baseline_order: int = 3  # the longest n-gram
    guard: bool = False  # pause when the machine is hot or short of battery or memory
    guard_battery: float = 20.0  # percent, while not charging
    guard_heat: float = 95.0  # degrees Celsius, of the processor
    guard_battery_heat: float = 43.0  # degrees Celsius
    guard_memory: float = 3.0  # percent free
    model: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.data:
            raise ConfigError("no data: name a text file or a folder with --data")
        self._check_numbers()
        if self.steps < 1 and not (self.tokens or self.flops or self.seconds):
            raise ConfigError("steps is 0 and no other budget is set: give --steps, 1 or more")
        several = [name for name in ("tokens", "seconds", "flops") if getattr(self, name)]
        if len(several) > 1:
            raise ConfigError(f"{' and '.join(several)} are {len(several)} budgets: set one")
        self._check_names()
        if self.workers != "auto" and (not self.workers.isdecimal() or int(self.workers) < 1):
            raise ConfigError(f"workers is {self.workers!r}; it must be 'auto', or 1 or more")
        if self.workers != "auto" and int(self.workers) > self.batch_size:
            raise ConfigError(
                f"workers is {self.workers}, but a batch has only {self.batch_size} rows to share: "
                "raise batch_size, or lower workers"
            )

    def _check_names(self) -> None:
        for one in fields(self):
            text = getattr(self, one.name)
            if isinstance(text, str) and not _is_unicode(text):
                raise ConfigError(f"{one.name} is {text!a}; it holds bytes that are not UTF-8")
        for name, choices in (
            ("optimizer", OPTIMIZERS),
            ("schedule", ("", *SCHEDULES)),
            ("batches", BATCHES),
        ):
            if getattr(self, name) not in choices:
                there_are = ", ".join(choice for choice in choices if choice)
                raise ConfigError(f"{name} is {getattr(self, name)!r}; there are {there_are}")
        if self.ema and self.optimizer == AVERAGING:
            raise ConfigError(
                "schedule-free averages the weights by itself: leave out ema, or choose another "
                "optimizer, such as adamw"
            )
        if self.init_from and self.tokenizer:
            raise ConfigError("init_from brings its own tokenizer with it: leave out tokenizer")

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
        self._check_ranges()

    def _check_ranges(self) -> None:
        for name in ("batch_size", "seq_len", "grad_accum"):
            if getattr(self, name) > MOST:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at most {MOST:,}")
        if not 0 <= self.final_rate <= 1:
            raise ConfigError(f"final_rate is {self.final_rate}; it must be from 0 to 1")
        if self.seed >= 2**64:
            raise ConfigError(f"seed is {self.seed}; it must be below 2^64")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema is {self.ema}; it must be from 0 (none) to below 1, e.g. 0.999")
        if (self.beta1 < 0) != (self.beta2 < 0):
            raise ConfigError("beta1 and beta2 go together: give both, or neither")
        if not 1 <= self.baseline_order <= HIGHEST_ORDER:
            raise ConfigError(
                f"baseline_order is {self.baseline_order}; it must be between 1 and {HIGHEST_ORDER}"
            )
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
        """The budget in updates; 0 where it is in seconds."""
        if self.seconds:
            return 0
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
                raise ConfigError(_unknown(name, list(kinds)))
            if name == "workers" and type(value) is int:
                value = str(value)  # noqa: PLW2901 (a number is a fine TOML value here)
            if kind is float and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)  # noqa: PLW2901 (1 is a fine learning rate)
            if type(value) is not kind:
                raise ConfigError(f"{name} is {value!r}; it must be {KINDS_OF_VALUES[kind]}")
            clean[name] = value
        if "data" not in clean:
            raise ConfigError("no data: name a text file or a folder with --data")
        return cls(**clean)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> dict[str, Any]:
        """The settings in a TOML file as plain values, to be completed by from_dict."""
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not a TOML file: {error}") from error
        names = [f.name for f in fields(cls)]
        for name in values:
            if name not in names:
                raise ConfigError(f"{path}: {_unknown(name, names)}")
        return values

    def to_toml(self) -> str:
        """The file that read() takes back."""
        values = asdict(self)
        model = values.pop("model")
        lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
        if model:
            lines += ["", "[model]", *(f"{name} = {_toml(value)}" for name, value in model.items())]
        return "\n".join(lines) + "\n"


def _unknown(name: str, names: list[str]) -> str:
    """The nearest name there is, or all of them."""
    near = difflib.get_close_matches(name, names, n=1)
    others = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
    return f"no setting is called {name!r}; {others}"


def _toml(value: Any) -> str:
    """A TOML literal: JSON's strings, numbers and booleans are TOML's, but for infinity."""
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
