"""Result 6: what each architecture decision is worth."""

from __future__ import annotations

import statistics

from book import Book, difference, spread, table

__all__ = ["architecture"]

LENGTHS = (64, 128, 256, 512)
CLAIMS = {  # arm -> the log's claim about ours against it
    "layernorm": "RMSNorm is 30 % cheaper",
    "learned positions": "RoPE: no parameters, extrapolates",
    "alibi": "RoPE rather than ALiBi",
    "gelu": "SwiGLU +1 to 3 % at equal parameters",
    "relu": "SwiGLU rather than ReLU",
}


def architecture(book: Book, figures: dict[str, str]) -> list[str]:
    """The section."""
    del figures
    name = "architecture"
    rows = []
    for arm in ("ours", *CLAIMS):
        words, low, high = difference(book, name, arm, "ours", of=len(CLAIMS))
        rows.append(
            [
                arm,
                CLAIMS.get(arm, "RMSNorm, RoPE, SwiGLU"),
                spread(book.values(name, arm)),
                "" if arm == "ours" else words,
                "" if arm == "ours" else _said(book, arm, low, high),
                *(_typical(book, arm, part) for part in ("step_ms", "norm_us", "mlp_us")),
            ]
        )
    head = ["", "claim", "nats a token", "less ours (interval)", ""]
    head += ["step, ms", "a norm, us", "an MLP, us"]
    lengths = [
        [arm, *(spread(book.values(name, arm, f"loss_at_{n}")) for n in LENGTHS)]
        for arm in ("ours", "alibi", "learned positions")
    ]
    return [
        "## 6. The architecture decisions",
        "",
        "One part of the plain reference replaced at a time, equal parameters, one rate for all; "
        "held-out loss, seeds in pairs; the intervals share 5 % among them. Times of the plain "
        "code, forward and backward, medians over the seeds.",
        *table(head, rows),
        book.state(name),
        "",
        "Does it extrapolate? Trained on 128 tokens of context, measured with others on the same "
        "targets (learned positions have none beyond 128):",
        *table(["", *(f"{n} tokens" for n in LENGTHS)], lengths),
    ]


def _typical(book: Book, arm: str, part: str) -> str:
    values = book.values("architecture", arm, part).values()
    return f"{statistics.median(values):.0f}" if values else "-"


def _said(book: Book, arm: str, low: float, high: float) -> str:
    if len(book.values("architecture", arm)) < 2:
        return "not run yet"
    if low > 0:
        return "ours is better"
    if high < 0:
        return "**ours is worse**"
    return "no difference shown"
