"""What can go wrong, as a tree:

PhiInferError
├── SamplingError   a sampling setting outside its range
└── ModelError      a checkpoint that cannot generate text
"""

__all__ = ["ModelError", "PhiInferError", "SamplingError"]


class PhiInferError(Exception):
    """Base of every error that phi_infer raises on purpose; its text is one line for a user."""


class SamplingError(PhiInferError, ValueError):
    """A sampling setting that makes no sense; says its range."""


class ModelError(PhiInferError):
    """A checkpoint without a tokenizer, or whose tokenizer does not fit the model."""
