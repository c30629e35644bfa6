"""The model that a run begins with: new, another's weights to fine-tune, or those it had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from phi_model import Checkpoint, LanguageModel, build_model
from phi_tokenizer import Tokenizer
from phi_train.config import TrainConfig
from phi_train.errors import ConfigError, RunError

__all__ = ["adopt", "first_model", "resumed_model"]


def adopt(config: TrainConfig, source: Checkpoint) -> TrainConfig:
    """The settings with the shape of the model in `source` in them.

    Raises ConfigError when they describe another one, or when it has no tokenizer to read text.
    """
    if source.tokenizer is None:
        raise ConfigError(f"{source.path} holds no tokenizer, so it cannot read text")
    n_vocab = Tokenizer.from_bytes(source.tokenizer).n_vocab
    if n_vocab != source.config.vocab_size:
        raise ConfigError(
            f"{source.path} has {source.config.vocab_size} rows in its embedding and a tokenizer "
            f"of {n_vocab} tokens: only a model with as many of both can be fine-tuned"
        )
    own = source.config.to_dict()
    for name, value in config.model.items():
        if name != "seq_len" and own.get(name, value) != value:
            raise ConfigError(
                f"{source.path} has {name} {own[name]}, the settings say {value}: a model "
                "keeps its shape when it is fine-tuned; leave it out of [model]"
            )
    del own["vocab_size"]
    own["seq_len"] = max(own["seq_len"], config.seq_len)
    return replace(config, model=own)


def first_model(
    config: TrainConfig, vocab_size: int, source: Checkpoint | None, say: Callable[[str], None]
) -> LanguageModel:
    """A new model, or one with the weights of `source`."""
    model = build_model(config.model_config(vocab_size), seed=config.seed)
    shape = model.config
    name = f"weights of {source.path}" if source is not None else config.preset
    if source is not None:
        model.parameters.assign(source.parameters)
    say(
        f"model: {name}, {shape.n_non_embedding:,} parameters and "
        f"{shape.n_parameters - shape.n_non_embedding:,} in the embedding, "
        f"{shape.n_parameters:,} in all"
    )
    return model


def resumed_model(config: TrainConfig, checkpoint: Checkpoint) -> LanguageModel:
    """The model of the checkpoint that a run goes on from; RunError when it is another shape."""
    if checkpoint.config != config.model_config(checkpoint.config.vocab_size):
        raise RunError(
            f"{checkpoint.path} is another model than these settings describe: a resumed "
            "run keeps its model (preset, seq_len, [model]); leave them out, or start anew"
        )
    return checkpoint.build()
