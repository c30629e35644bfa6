"""What can go wrong, as a tree:

PhiOptimError
├── HyperparameterError   a value outside its range
├── StateError            a saved state that does not fit the parameters
└── NotFiniteError        a gradient that holds a NaN or an infinity
"""

__all__ = ["HyperparameterError", "NotFiniteError", "PhiOptimError", "StateError"]


class PhiOptimError(Exception):
    """Base of every error that phi_optim raises on purpose; its text is one line for a user."""


class HyperparameterError(PhiOptimError, ValueError):
    """A hyper-parameter outside its range; says the range."""


class StateError(PhiOptimError, ValueError):
    """A state that was saved for other parameters, or by another optimiser."""


class NotFiniteError(PhiOptimError, ArithmeticError):
    """A gradient with a NaN or an infinity; names the parameter. Nothing was updated."""
