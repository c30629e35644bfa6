"""What can go wrong, as one small tree.

    TokenizerError (ValueError)
    ├── TrainingError        nothing to train on, or a vocabulary too small
    ├── EncodingError        text that is not text: lone surrogates, bytes that are not UTF-8,
    │                        a special token where none is allowed
    ├── TokenIdError         an id, or a token, that the vocabulary does not hold
    ├── FormatError          a tokenizer file that is broken, or of a kind not known here
    └── MissingExtraError    an optional dependency is not installed

Every message is one line: the thing, the value it had, and what to do about it.
All of them are `ValueError`s, because tiktoken raises `ValueError` in the same places.
"""

__all__ = [
    "EncodingError",
    "FormatError",
    "MissingExtraError",
    "TokenIdError",
    "TokenizerError",
    "TrainingError",
]


class TokenizerError(ValueError):
    """Base of every error that this package raises on purpose."""


class TrainingError(TokenizerError):
    """The corpus or the requested vocabulary cannot give a tokenizer."""


class EncodingError(TokenizerError):
    """The input is not text that can be encoded."""


class TokenIdError(TokenizerError, KeyError):
    """An id or a token is not in the vocabulary.

    Also a `KeyError`, as tiktoken raises one for an unknown id.
    """

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""  # KeyError would show a repr


class FormatError(TokenizerError):
    """A tokenizer file is broken or unknown."""


class MissingExtraError(TokenizerError):
    """An optional dependency is missing; the message holds the pip command."""
