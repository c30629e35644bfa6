"""What can go wrong, as a tree:

PhiTrainError
├── DataError     a source that is missing, empty, damaged or too small
├── ConfigError   settings that make no sense, alone or together
├── RunError      a run's folder that cannot be used as asked
├── Diverged      a loss or a gradient that is no longer a number
└── Stopped       work that was asked to stop, is saved, and can go on
"""

__all__ = ["ConfigError", "DataError", "Diverged", "PhiTrainError", "RunError", "Stopped"]


class PhiTrainError(Exception):
    """Base of every error that phi_train raises on purpose; its text is one line for a user."""


class DataError(PhiTrainError):
    """Text that cannot be used; names the file, and the place in it where there is one."""


class ConfigError(PhiTrainError, ValueError):
    """A setting that makes no sense; says which values would do."""


class RunError(PhiTrainError):
    """A run's folder that is in use, finished, damaged or not a run's; says what to do."""


class Diverged(PhiTrainError):
    """A loss or gradient that is NaN or infinite; the last good checkpoint is kept.

    what: the text without what was kept, which depends on when the run was stopped and resumed.
    """

    def __init__(self, what: str, kept: str = "") -> None:
        super().__init__(f"{what}; {kept}" if kept else what)
        self.what = what


class Stopped(PhiTrainError):
    """Work that was asked to stop, has saved what it needs, and can go on later."""
