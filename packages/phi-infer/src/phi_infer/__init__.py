"""Streaming text generation from small language models, with numpy alone.

>>> from phi_infer import load
>>> print(load("best.phi").generate("Once upon a time", max_tokens=50, seed=1))  # doctest: +SKIP
"""

from phi_infer.errors import FormatError, ModelError, PhiInferError, SamplingError
from phi_infer.generator import Generator, load
from phi_infer.request import Completion, TokenChoice
from phi_infer.sampling import Sampling
from phi_infer.score import Score
from phi_infer.text_state import TextState

__all__ = [
    "Completion",
    "FormatError",
    "Generator",
    "ModelError",
    "PhiInferError",
    "Sampling",
    "SamplingError",
    "Score",
    "TextState",
    "TokenChoice",
    "load",
]

__version__ = "0.1.0"
