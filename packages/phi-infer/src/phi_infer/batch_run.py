"""Requests side by side: as soon as one text ends, the next takes its slot."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from phi_infer.request import Request
from phi_infer.steps import Weights, new_batch
from phi_infer.text_state import TextState

__all__ = ["run_batch"]


def run_batch(
    weights: Weights,
    requests: Sequence[Request],
    *,
    slots: int,
    workers: int = 1,
    find: Callable[[Sequence[int]], TextState | None] = lambda _: None,
) -> None:
    """Finishes every request, `slots` of them at a time.

    find: a state of what ids begin with, if there is one.
    """
    waiting = deque(request for request in requests if request.finish is None)
    if not waiting:
        return
    slots = min(slots, len(waiting))
    batch = new_batch(weights, slots, workers=min(workers, slots))
    try:
        running: dict[int, tuple[Request, int]] = {}  # slot -> request, its last token
        while waiting or running:
            while waiting and batch.free:
                request = waiting.popleft()
                state = find(request.seen)
                slot = batch.add(request.seen[len(state.ids) if state else 0 :], state=state)
                token, _ = request.draw(batch.logits[slot])
                running[slot] = request, token
            for slot, (request, _) in list(running.items()):
                if request.finish is not None:
                    batch.remove(slot)
                    del running[slot]
            if not running:
                continue
            taken = list(running)
            rows = batch.step(taken, [running[slot][1] for slot in taken])
            for slot, logits in zip(taken, rows, strict=True):
                request = running[slot][0]
                running[slot] = request, request.draw(logits)[0]
    finally:
        batch.close()
