"""What can go wrong, as a tree:

PhiInferError
├── SamplingError   a setting outside its range, or a prompt that cannot be used
├── ModelError      a checkpoint that cannot generate text
├── FormatError     a file that is damaged, or a model that a file format cannot hold
├── ContextError    a text too long for a step that may not go on (in gpt_cache)
└── RequestError    a request that the server refuses (in server.errors)
"""

__all__ = ["FormatError", "ModelError", "PhiInferError", "SamplingError"]


class PhiInferError(Exception):
    """Base of every error that phi_infer raises on purpose; its text is one line for a user."""


class SamplingError(PhiInferError, ValueError):
    """A sampling setting that makes no sense; says its range."""


class ModelError(PhiInferError):
    """A checkpoint without a tokenizer, or whose tokenizer does not fit the model."""


class FormatError(PhiInferError):
    """A model file that is not sound, or an option of a model that a format has no place for."""
