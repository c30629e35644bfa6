"""SPIN's loss and the weights of its gradient equal torch's autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from phi_train.improve.spin_loss import pair_weights, spin_loss


@pytest.mark.parametrize("scale", [0.05, 0.5, 5.0])
def test_loss_and_weights(scale):
    rng = np.random.default_rng(0)
    log_probs, reference = -60 * rng.random((2, 24))
    theirs = torch.tensor(log_probs, requires_grad=True)
    real, own = (theirs - torch.tensor(reference)).chunk(2)
    expected = -torch.nn.functional.logsigmoid(scale * (real - own)).mean()
    expected.backward()

    loss, margins = spin_loss(log_probs, reference, scale)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    # weights are those of losses -log p, so their sign is the other one
    np.testing.assert_allclose(-pair_weights(margins, scale), theirs.grad.numpy(), rtol=1e-12)
