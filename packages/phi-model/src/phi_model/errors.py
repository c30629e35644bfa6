"""What can go wrong, as a tree:

PhiModelError
├── ConfigError       a model that cannot exist, or a batch that does not fit it
├── CheckpointError   a file that is not a sound checkpoint
├── NotFiniteError    a NaN or an infinity where a number was due
└── WorkerError       a worker that failed or died in the middle of a step
"""

__all__ = ["CheckpointError", "ConfigError", "NotFiniteError", "PhiModelError", "WorkerError"]


class PhiModelError(Exception):
    """Base of every error that phi_model raises on purpose; its text is one line for a user."""


class ConfigError(PhiModelError, ValueError):
    """A configuration, or a batch, that no model can take; says which values would do."""


class CheckpointError(PhiModelError):
    """A checkpoint that is missing parts, damaged, or of a version this reader does not know."""


class NotFiniteError(PhiModelError, ArithmeticError):
    """A loss or a gradient that is NaN or infinite; names the parameter."""


class WorkerError(PhiModelError, RuntimeError):
    """A worker failed or died in the middle of a step; parameters are as before it."""
