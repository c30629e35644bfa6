"""The same model and step in PyTorch, eager and compiled, as one would write them there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """Attention and MLP with RMSNorm, RoPE and SwiGLU."""

    def __init__(self, n_embd: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.attention_norm, self.mlp_norm = nn.RMSNorm(n_embd, 1e-5), nn.RMSNorm(n_embd, 1e-5)
        self.qkv = nn.Linear(n_embd, 3 * n_embd, bias=False)
        self.out = nn.Linear(n_embd, n_embd, bias=False)
        self.gate_up = nn.Linear(n_embd, 8 * n_embd, bias=False)
        self.down = nn.Linear(4 * n_embd, n_embd, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        b, t, c = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(b, t, 3, self.n_head, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = turn(q, cos, sin), turn(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


def turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """RoPE, halves as planes."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class TorchGPT(nn.Module):
    """A tied GPT."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        n_embd, n_layer, n_head, _, length = shape
        self.embedding = nn.Embedding(1024, n_embd)
        self.layers = nn.ModuleList(Block(n_embd, n_head) for _ in range(n_layer))
        self.norm = nn.RMSNorm(n_embd, 1e-5)
        half = n_embd // n_head // 2
        angles = torch.outer(torch.arange(length), 10_000.0 ** (-torch.arange(half) / half))
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        logits = self.norm(x) @ self.embedding.weight.T
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def torch_steps(shape: tuple[int, ...]) -> dict[str, Callable[[], float]]:
    """Eager and compiled."""
    return {"torch eager": _gpt_step(shape, False), "torch.compile": _gpt_step(shape, True)}


def _gpt_step(shape: tuple[int, ...], compiled: bool) -> Callable[[], float]:
    torch.manual_seed(0)
    torch._dynamo.reset() if not compiled else None
    model = TorchGPT(shape)
    return torch_step(model, torch.compile(model) if compiled else model, shape)


def torch_step(
    model: nn.Module, call: Callable[..., torch.Tensor], shape: tuple[int, ...]
) -> Callable[[], float]:
    """Forward by `call`, backward, clipping, AdamW."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    _, _, _, batch, length = shape
    rows = np.random.default_rng(0).integers(0, 1024, (batch, length + 1))
    ids, targets = torch.from_numpy(rows[:, :-1].copy()), torch.from_numpy(rows[:, 1:].copy())

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = call(ids, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step
