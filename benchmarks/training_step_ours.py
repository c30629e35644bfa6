"""Our training step for the benchmark, and its matrix products alone, recorded and replayed."""

from __future__ import annotations

import os

import numpy as np

from phi_model import ModelConfig, build_model, shared_zeros
from phi_optim import AdamW, clip_scale


class OurStep:
    """Two workers, as `phi-train run` uses them; a GPT of that shape, or the model of a config."""

    def __init__(self, shape: tuple[int, ...], config: ModelConfig | None = None) -> None:
        n_embd, n_layer, n_head, batch, length = shape
        config = config or ModelConfig(
            vocab_size=1024, n_embd=n_embd, n_layer=n_layer, n_head=n_head, seq_len=length
        )
        self.model = build_model(config, seed=0)
        self.optimizer = AdamW(self.model.parameters, allocate=shared_zeros)
        rows = np.random.default_rng(0).integers(0, 1024, (batch, length + 1))
        self.ids, self.targets = rows[:, :-1], rows[:, 1:]
        self._products: list[tuple] = []
        self.model.start_workers(
            2,
            batch_size=batch,
            seq_len=length,
            jobs={"update": self._update, "record": self._record, "replay": self._replay},
        )

    def _update(self, member: int, step: float, scale: float) -> None:
        self.optimizer.update(
            self.model.gradients,
            step=int(step),
            learning_rate=1e-3,
            scale=scale,
            share=member,
            shares=2,
        )

    def step(self) -> float:
        """Forward, backward, clipping, AdamW."""
        loss = self.model.loss_and_grad(self.ids, self.targets)
        self.optimizer.steps += 1
        scale = clip_scale(self.model.gradient_norm, 1.0)
        self.model.run_job("update", self.optimizer.steps, scale)
        return loss

    def _record(self, member: int) -> None:
        """Runs this worker's forward and backward, noting operands and output of each product."""
        matmul = np.matmul

        def noting(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
            if a.shape[-2] > 1 and b.shape[-1] > 1:  # sums by a vector of ones are no products
                self._products.append((a, b, out))
            return matmul(a, b, out=out)

        self._products.clear()
        np.matmul = noting  # type: ignore[assignment, misc]
        try:
            self.model._backward(member, *self.ids.shape)
        finally:
            np.matmul = matmul  # type: ignore[misc]

    def _replay(self, member: int) -> None:  # noqa: ARG002
        for a, b, out in self._products:
            np.matmul(a, b, out=out)

    def replay(self) -> None:
        """The products of one step, by both workers at once."""
        if not self._products:
            self.step()
            self.model.run_job("record")
        self.model.run_job("replay")

    def processes(self) -> list[int]:
        """This process and its worker."""
        children = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
        with open(children, encoding="utf-8") as file:
            return [os.getpid(), *map(int, file.read().split())]
