"""Byte-level BPE, trained and run in pure Python and numpy.

>>> from phi_tokenizer import Tokenizer
"""

from phi_tokenizer.errors import (
    EncodingError,
    FormatError,
    MissingExtraError,
    TokenIdError,
    TokenizerError,
    TrainingError,
)
from phi_tokenizer.stream import StreamDecoder
from phi_tokenizer.tokenizer import Tokenizer

__all__ = [
    "EncodingError",
    "FormatError",
    "MissingExtraError",
    "StreamDecoder",
    "TokenIdError",
    "Tokenizer",
    "TokenizerError",
    "TrainingError",
]

__version__ = "0.1.0"
