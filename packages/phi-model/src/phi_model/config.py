"""The shape of a model, checked and explained, and the presets that users name.

>>> ModelConfig.preset("gpt-1m").n_embd
128
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from phi_model.errors import ConfigError
from phi_model.rwkv7_sizes import check_rwkv7, rwkv7_counts

if TYPE_CHECKING:
    from phi_model.memory_use import MemoryUse

__all__ = ["PRESETS", "ModelConfig"]

# name -> (n_embd, n_layer, n_head); a name counts the parameters outside the embedding
PRESETS: dict[str, tuple[int, int, int]] = {
    "gpt-1k": (8, 1, 1),
    "gpt-10k": (24, 1, 1),
    "gpt-100k": (40, 4, 2),
    "gpt-1m": (128, 4, 4),
    "gpt-4m": (192, 6, 6),
    "gpt-9m": (256, 8, 8),
    "gpt-30m": (384, 12, 12),
    "rwkv7-100k": (32, 5, 1),
    "rwkv7-1m": (128, 4, 4),
    "rwkv7-4m": (192, 8, 6),
    "rwkv7-9m": (256, 10, 8),
}

KINDS = ("gpt", "rwkv7")
RESIDUAL_INITS = ("small", "scaled")  # see phi_model.initialise
MOST_HEADS_LISTED = 4096  # in an error: more would not be read


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a model of either kind:

    gpt      RMSNorm, RoPE, causal attention, SwiGLU, no biases
    rwkv7    RWKV-7 (Peng et al. 2025, arXiv:2503.14456): a state of constant size, no attention;
             fields that only concern attention, its positions or its start keep their defaults

    The fields from n_kv_head on are younger than the checkpoint format: a file without them
    means their defaults. Raises ConfigError when the numbers do not fit together.
    """

    kind: str = "gpt"
    vocab_size: int = 1024
    seq_len: int = 256  # tokens of context the model is trained on
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    n_hidden: int = 0  # width of the MLP; 0 means 4 * n_embd
    tied_head: bool = True  # the head shares the embedding's matrix
    rope_base: float = 10_000.0  # Su et al. 2021, arXiv:2104.09864
    norm_eps: float = 1e-5  # keeps RMSNorm finite on a zero vector
    n_kv_head: int = 0  # heads of keys and values, each shared by n_head / n_kv_head heads of
    # queries (Ainslie et al. 2023, arXiv:2305.13245); 0 means n_head: none is shared
    qk_norm: bool = False  # RMSNorm over each head's queries and keys (arXiv:2010.04245)
    rope_scaling: float = 1.0  # positions are divided by it (Chen et al. 2023, arXiv:2306.15595):
    # with 2.0 twice the trained context turns queries and keys no further than training did
    residual_init: str = "small"  # matrices that write into the residual stream; or "scaled"

    def __post_init__(self) -> None:
        if self.n_hidden == 0:
            object.__setattr__(self, "n_hidden", 4 * self.n_embd)
        if self.n_kv_head == 0:
            object.__setattr__(self, "n_kv_head", self.n_head)
        self._check_kind_and_sizes()
        self._check_heads()

    def _check_kind_and_sizes(self) -> None:
        if self.kind not in KINDS:
            names = " and ".join(map(repr, KINDS))
            raise ConfigError(f"kind is {self.kind!r}; this version knows {names}")
        sizes = ("vocab_size", "seq_len", "n_layer", "n_head", "n_embd", "n_hidden", "n_kv_head")
        for name in sizes:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number, 1 or more")
        if self.vocab_size < 2:
            raise ConfigError("vocab_size is 1; with a single token there is nothing to predict")
        for name in ("rope_base", "rope_scaling", "norm_eps"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value < float("inf"):
                raise ConfigError(f"{name} is {value!r}; it must be a positive number")
        for name in ("tied_head", "qk_norm"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be true or false")
        if self.residual_init not in RESIDUAL_INITS:
            names = " or ".join(map(repr, RESIDUAL_INITS))
            raise ConfigError(f"residual_init is {self.residual_init!r}; it must be {names}")

    def _check_heads(self) -> None:
        if self.kind == "rwkv7":
            check_rwkv7(self)
            return
        if self.n_embd % self.n_head or self.head_size % 2:
            limit = min(self.n_embd, MOST_HEADS_LISTED)
            fitting = [h for h in range(1, limit + 1) if self.n_embd % (2 * h) == 0]
            raise ConfigError(
                f"n_embd {self.n_embd} cannot be split into {self.n_head} heads of even size "
                f"(RoPE rotates pairs); n_head may be {', '.join(map(str, fitting)) or 'none'}"
                + ("" if fitting else ": choose an even n_embd")
            )
        if self.n_head % self.n_kv_head:
            fitting = [h for h in range(1, self.n_head + 1) if self.n_head % h == 0]
            raise ConfigError(
                f"n_kv_head {self.n_kv_head} does not divide n_head {self.n_head} (as many heads "
                f"of queries share each head of keys); n_kv_head may be "
                f"{', '.join(map(str, fitting))}"
            )

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.n_embd // self.n_head

    @property
    def n_kv_embd(self) -> int:
        """Channels of the keys of all heads, and of their values."""
        return self.n_kv_head * self.head_size

    @property
    def n_group(self) -> int:
        """Heads of queries that share one head of keys and values."""
        return self.n_head // self.n_kv_head

    @property
    def head_name(self) -> str:
        """Name of the parameter that makes the logits."""
        return "embedding" if self.tied_head else "head"

    @property
    def n_non_embedding(self) -> int:
        """Parameters outside the embedding and the head."""
        if self.kind == "rwkv7":
            return rwkv7_counts(self).non_embedding
        attention = 2 * self.n_embd * (self.n_embd + self.n_kv_embd)
        mlp = 3 * self.n_embd * self.n_hidden
        return self.n_layer * (attention + mlp) + self._n_gains

    @property
    def _n_gains(self) -> int:
        qk = 2 * self.head_size if self.qk_norm else 0
        return self.n_layer * (2 * self.n_embd + qk) + self.n_embd

    @property
    def n_parameters(self) -> int:
        """All parameters; a tied head is counted once."""
        return self.n_non_embedding + self.vocab_size * self.n_embd * (1 if self.tied_head else 2)

    def flops_per_token(self, length: int | None = None) -> int:
        """Floating-point operations of one training step a token, forward and backward.

        Two for each multiply-add of every matrix product, causal attention counted at half of
        length^2; backward costs twice forward. length defaults to seq_len. Of RWKV-7's recurrence
        the four products a token of its definition are counted, which depend on no length.
        """
        if self.kind == "rwkv7":
            return 6 * (rwkv7_counts(self).multiply_adds + self.vocab_size * self.n_embd)
        length = self.seq_len if length is None else length
        matrices = self.n_non_embedding - self._n_gains + self.vocab_size * self.n_embd
        attention = self.n_layer * self.n_embd * (length + 1)
        return 6 * (matrices + attention)

    def memory(
        self, batch_size: int, seq_len: int, *, workers: int = 1, training: bool = True
    ) -> MemoryUse:
        """Bytes for parameters, gradients, AdamW's moments and activations, and their total.

        For steps on batches [batch_size, seq_len] in float32. training=False: for losses and
        logits alone, which keep no activations for a backward pass; a process that does both
        has both arenas. Within 15 % of what the process grows by at its peak.
        """
        if self.kind == "rwkv7":
            from phi_model.rwkv7.memory_use import rwkv7_memory_use  # noqa: PLC0415 (as below)

            return rwkv7_memory_use(self, batch_size, seq_len, workers=workers, training=training)
        from phi_model.memory_use import memory_use  # noqa: PLC0415 (it imports this module)

        return memory_use(self, batch_size, seq_len, workers=workers, training=training)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> ModelConfig:
        """The preset `name` with any field changed, e.g. vocab_size or seq_len."""
        if name not in PRESETS:
            raise ConfigError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
        n_embd, n_layer, n_head = PRESETS[name]
        kind = name.partition("-")[0]
        shape = {"kind": kind, "n_embd": n_embd, "n_layer": n_layer, "n_head": n_head}
        return cls.from_dict(shape | changes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """The config with these fields, the rest at their defaults; unknown names are refused."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(map(str, values)) - set(known))
        if unknown:
            raise ConfigError(
                f"a model config has no field {', '.join(unknown)}; it has {', '.join(known)}"
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values, as a checkpoint keeps them."""
        return asdict(self)
