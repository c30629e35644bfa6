"""RWKV-7 in PyTorch with its recurrence as a loop, and the GPT at RWKV-7's size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from training_step_torch import TorchGPT

from phi_model import ModelConfig
from phi_model.rwkv7.parameters import MIXES, rwkv7_parameter_shapes


class TorchRWKV7(nn.Module):
    """The same formulas, gradients by autograd."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.p = nn.ParameterDict()
        for name, shape in rwkv7_parameter_shapes(config).items():
            value = torch.randn(shape) * (0.05 if len(shape) == 2 else 0.1)
            self.p[name.replace(".", "/")] = nn.Parameter(value + name.endswith("gain"))

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        p, c = self.p, self.config
        x = self.norm(p["embedding"][ids], "embedding_norm")
        first = None
        for i in range(c.n_layer):
            y, first = self.time_mix(self.norm(x, f"layers/{i}/time_norm"), i, first)
            x = x + y
            h = self.norm(x, f"layers/{i}/channel_norm")
            part = f"layers/{i}/channel_mix"
            h = h + (before(h) - h) * p[f"{part}/mix_k"]
            x = x + torch.relu(h @ p[f"{part}/key"].T).square() @ p[f"{part}/value"].T
        logits = self.norm(x, "final_norm") @ p["embedding"].T
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        gain, bias = self.p[f"{name}/gain"], self.p[f"{name}/bias"]
        return F.layer_norm(x, x.shape[-1:], gain, bias, self.config.norm_eps)

    def time_mix(
        self, h: torch.Tensor, i: int, first: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        def p(name: str) -> torch.Tensor:
            return self.p[f"layers/{i}/time_mix/{name}"]

        n, (b, t, _) = self.config.n_head, h.shape
        d = before(h) - h
        m = {name: h + d * p(f"mix_{name}") for name in MIXES}
        r, k, v = (
            m[name] @ p(full).T
            for name, full in (("r", "receptance"), ("k", "key"), ("v", "value"))
        )
        z = torch.tanh(m["w"] @ p("w_down").T) @ p("w_up").T + p("w_bias")
        w = torch.exp(-0.6065306597126334 * torch.sigmoid(z))
        a = torch.sigmoid(m["a"] @ p("a_down").T @ p("a_up").T + p("a_bias"))
        gate = torch.sigmoid(m["g"] @ p("g_down").T) @ p("g_up").T
        if first is None:
            first = v
        else:
            share = torch.sigmoid(m["v"] @ p("v_down").T @ p("v_up").T + p("v_bias"))
            v = v + (first - v) * share
        kappa = F.normalize((k * p("k_k")).view(b, t, n, -1), dim=-1)
        k = k * (1 + (a - 1) * p("k_a"))
        r, w, k, v_heads, a = (part.view(b, t, n, -1) for part in (r, w, k, v, a))
        state, ys = torch.zeros(b, n, r.shape[-1], r.shape[-1]), []
        steps = (part.unbind(1) for part in (r, w, k, v_heads, kappa, kappa * a))
        for rt, wt, kt, vt, qt, bt in zip(*steps, strict=True):
            read = state @ qt[..., None]
            state = state * wt[..., None, :] - read * bt[..., None, :]
            state = state + vt[..., None] * kt[..., None, :]
            ys.append((state @ rt[..., None])[..., 0])
        y = torch.stack(ys, dim=1).reshape(b * t, -1)
        y = F.group_norm(y, n, p("head_norm/gain"), p("head_norm/bias"), 64e-5).view(b, t, -1)
        bonus = (r * k * p("r_k").view(n, -1)).sum(-1, keepdim=True) * v_heads
        return ((y + bonus.reshape(b, t, -1)) * gate) @ p("output").T, first


def before(x: torch.Tensor) -> torch.Tensor:
    """The token before; nothing before the first."""
    return F.pad(x, (0, 0, 1, -1))


def torch_gpt(shape: tuple[int, ...], n_hidden: int) -> nn.Module:
    """The benchmark's GPT with another hidden size."""
    model = TorchGPT(shape)
    for block in model.layers:
        block.gate_up = nn.Linear(shape[0], 2 * n_hidden, bias=False)
        block.down = nn.Linear(n_hidden, shape[0], bias=False)
    return model
