"""What `phi-tokenizer inspect` shows: the shape of a vocabulary, and how it cuts a text."""

from typing import Any

import numpy as np

from phi_tokenizer.tokenizer import Tokenizer

__all__ = ["describe_text", "describe_vocabulary"]


def describe_vocabulary(tokenizer: Tokenizer) -> dict[str, Any]:
    """Counts and extremes of a vocabulary, ready for JSON."""
    vocabulary = tokenizer.vocabulary
    special = set(vocabulary.special.values())
    ordinary = [t for i, t in enumerate(vocabulary.tokens) if t is not None and i not in special]
    lengths = np.array([len(token) for token in ordinary])
    longest = sorted(ordinary, key=lambda token: (-len(token), token))[:10]
    return {
        "n_vocab": tokenizer.n_vocab,
        "merges": len(vocabulary.merges),
        "special_tokens": dict(vocabulary.special),
        "pattern": tokenizer.pattern,
        "dtype": str(tokenizer.dtype),
        "mean_token_bytes": round(float(lengths.mean()), 3),
        "tokens_by_bytes": {
            str(length): int(count) for length, count in enumerate(np.bincount(lengths)) if count
        },
        "starting_with_a_blank": sum(token.startswith(b" ") for token in ordinary),
        "no_whole_characters": sum(not _is_text(token) for token in ordinary),
        "longest": [token.decode("utf-8", "replace") for token in longest],
    }


def describe_text(tokenizer: Tokenizer, text: str) -> dict[str, Any]:
    """How a text is cut: its ids, its tokens, bytes per token."""
    ids = tokenizer.encode(text, allowed_special="all")
    size = len(text.encode())
    return {
        "bytes": size,
        "characters": len(text),
        "tokens": len(ids),
        "bytes_per_token": round(size / len(ids), 4) if ids else None,
        "ids": ids,
        "pieces": [tokenizer.token_bytes(i).decode("utf-8", "backslashreplace") for i in ids],
    }


def _is_text(token: bytes) -> bool:
    try:
        token.decode()
    except UnicodeDecodeError:
        return False
    return True
