"""The figures of a run, and the words for how it went: no more than its record can bear."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from phi_train.report.curve import smooth
from phi_train.report.record import RunRecord

__all__ = ["floor_loss", "state", "summary", "verdict"]

RISEN = 1.05  # of the lowest smoothed loss: above it the loss has risen again


def summary(run: RunRecord) -> dict[str, Any]:
    """Plain values, for --json and for the tables; None for what is not known."""
    loss, throughput = run.columns["loss"], run.throughput
    return {
        "run": str(run.path),
        "state": state(run),
        "step": run.step,
        "total_steps": run.total_steps,
        "preset": run.config.get("preset"),
        "parameters": run.model.n_parameters if run.model else None,
        "tokens": int(run.columns["tokens"].last or 0),
        "seconds": round(float(run.columns["seconds"].values.sum()), 3),
        "tokens_per_second": round(float(_mean_rate(run)), 1) if len(throughput) else None,
        "time_shares": {k: round(v, 4) for k, v in run.time_shares.items()},
        "train_loss": smooth(loss).last,
        "valid_loss": run.valid.last,
        "best_valid_loss": float(run.valid.values.min()) if len(run.valid) else None,
        "final_loss": _finite(run.final.get("final_loss")),
        "bits_per_byte": _finite(run.final.get("bits_per_byte")),
        "baselines": baselines(run),
        "floor_loss": floor_loss(run),
        "floor_bits_per_byte": _finite(run.final.get("floor")),
        "gap_bits_per_byte": _finite(run.final.get("gap")),
        "trouble": run.trouble or None,
    }


def _mean_rate(run: RunRecord) -> float:
    """Tokens a second over all steps whose time and tokens are known."""
    rate = run.throughput
    seconds = dict(zip(run.columns["seconds"].steps, run.columns["seconds"].values, strict=True))
    spent = [seconds[step] for step in rate.steps]
    return float(np.dot(rate.values, spent) / sum(spent))


def _finite(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def baselines(run: RunRecord) -> dict[str, float]:
    """n-gram losses, nats a token, measured on the whole held-out text."""
    levels = run.final.get("baselines")
    if not isinstance(levels, Mapping):
        return {}
    return {str(k): found for k, v in levels.items() if (found := _finite(v)) is not None}


def floor_loss(run: RunRecord) -> float | None:
    """The entropy of the text's source in nats a token, where it is known.

    The log has it in bits a byte, of the same text as final_loss, so their quotient converts it.
    """
    loss, bits, floor = (
        _finite(run.final.get(k)) for k in ("final_loss", "bits_per_byte", "floor")
    )
    if loss is None or not bits or floor is None:
        return None
    return floor * loss / bits


def state(run: RunRecord) -> str:
    """finished, running, diverged or stopped."""
    if run.finished:
        return "diverged" if run.trouble else "finished"
    if run.running:
        return "running"
    return "diverged" if run.trouble else "stopped"


def verdict(run: RunRecord) -> list[str]:
    """Sentences: how far the run came, and what its loss means."""
    return [text for text in (_progress(run), _result(run), _shape(run), _gaps(run)) if text]


def _progress(run: RunRecord) -> str:
    of = f" of {run.total_steps:,}" if run.total_steps else ""
    if not run.step:
        return {"running": "Just begun: no step is recorded yet."}.get(
            state(run), "No step is recorded: the run ended before its first update."
        )
    how = {
        "finished": f"Finished after {run.step:,}{of} steps.",
        "running": f"Still running: step {run.step:,}{of} so far.",
        "stopped": f"Stopped at step {run.step:,}{of}; it was not finished.",
        "diverged": f"Diverged: {run.trouble or 'the loss is no longer a number'}. "
        f"The last step recorded is {run.step:,}{of}.",
    }[state(run)]
    if run.finished and run.total_steps and run.step < run.total_steps:
        how = f"Ended early, by its own rule, after {run.step:,}{of} steps."
    return how


def _result(run: RunRecord) -> str:
    """Where the loss lies among the n-grams and the floor; only what was measured alike."""
    loss = _finite(run.final.get("final_loss"))
    if loss is None:
        if not len(run.valid):
            return "Nothing was measured on held-out text yet." if run.step else ""
        where = f"the first {run.valid_tokens:,} tokens" if run.valid_tokens else "a part"
        return (
            f"Held-out loss {run.valid.last:.4f} nats a token, on {where} of the held-out text "
            f"only: n-grams and floor are measured when a run finishes."
        )
    levels = baselines(run)
    beaten = {k: v for k, v in levels.items() if v > loss}
    unbeaten = {k: v for k, v in levels.items() if v <= loss}
    said = []
    if beaten:
        name, level = min(beaten.items(), key=lambda item: item[1])
        said.append(f"{level - loss:.3f} nats a token better than the {name}")
    if unbeaten:
        name, level = max(unbeaten.items(), key=lambda item: item[1])
        said.append(f"{loss - level:.3f} worse than the {name}")
    floor = floor_loss(run)
    if floor is not None:
        said.append(f"{loss - floor:.3f} above the entropy of the text's source")
    return f"On held-out text the model is {_listed(said)}." if said else ""


def _shape(run: RunRecord) -> str:
    """A warning where the training loss rose again, or the held-out loss did."""
    loss = smooth(run.columns["loss"])
    if len(loss) >= 100:
        low = int(loss.values[50:].argmin()) + 50
        if loss.values[-1] > RISEN * loss.values[low] and loss.values[low] > 0:
            return (
                f"The training loss rose again: {loss.values[low]:.3f} around step "
                f"{loss.steps[low]:,.0f}, {loss.values[-1]:.3f} at the end (both smoothed)."
            )
    valid = run.valid
    if len(valid) >= 3 and valid.values[-1] > RISEN * valid.values.min():
        best = int(valid.values.argmin())
        return (
            f"The held-out loss was lower before: {valid.values[best]:.3f} at step "
            f"{valid.steps[best]:,.0f}, {valid.values[-1]:.3f} at the last measurement."
        )
    return ""


def _gaps(run: RunRecord) -> str:
    if not run.unreadable:
        return ""
    lines = "1 line" if run.unreadable == 1 else f"{run.unreadable:,} lines"
    return f"Left out: {lines} of metrics.jsonl that could not be read."


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
