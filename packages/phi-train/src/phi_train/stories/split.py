"""Training or validation: a story's side is a property of its text, the same for everybody.

A stable hash of the text puts one story in `ONE_IN` on the validation side, so that no validation
story can occur in training, whatever the seeds and however long the streams.

What this does to the probabilities. The two sides are the source restricted to half of its texts:
P(text | side) = P(text) / P(side) exactly, that is, `log_prob` is that of the unconditional source,
and a story's conditional log-probability is higher by the constant -ln P(side): 0.105 nats a story
(training, P = 0.9) and 2.303 nats (validation, P = 0.1), about 0.2 and 3.3 bits on some hundreds.
P(side) is 1/10 up to the luck of the hash: its standard deviation is 0.3 sqrt(sum p(text)^2), less
than 1e-5 for the default grammar, whose likeliest stories have probabilities of about 1e-9.
No model can use the constant, because the hash looks independent of anything that can be learned
from text: a model that has learned the source perfectly gives validation texts exactly
`log_prob`. So the floor of the gap is the unconditional source on the same validation stories.
"""

from __future__ import annotations

from hashlib import blake2b

__all__ = ["ONE_IN", "is_validation"]

ONE_IN = 10
"""One story in this many is a validation story."""


def is_validation(text: str) -> bool:
    """Whether this text belongs to validation (and so never to training).

    >>> [n for n in range(40) if is_validation(f"story {n}")]
    [25, 36, 37]
    """
    digest = blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % ONE_IN == 0
