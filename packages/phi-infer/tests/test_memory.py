"""A model's weights are in private memory once: folded, or mapped, not both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from phi_infer.mapped import let_go
from phi_model import ModelConfig, build_model, load_checkpoint, save_checkpoint

SCRIPT = """
import sys
from pathlib import Path
from phi_infer.steps import fold, new_step
from phi_model import load_checkpoint

def private():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024

checkpoint = load_checkpoint(sys.argv[1])
new_step(fold(checkpoint.config, dict(checkpoint.parameters)))
checkpoint.parameters["embedding"].sum()
before = private()
weights = fold(checkpoint.config, dict(checkpoint.parameters))
del checkpoint
step = new_step(weights)
step.prefill([1, 2, 3])
step(4)
print(private() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's smaps")
@pytest.mark.parametrize("kind", ["gpt", "rwkv7"])
def test_private_memory_is_the_weights_once(tmp_path, kind):
    """All but the base of the process: 1.2 times the weights at most, the file let go."""
    config = ModelConfig(kind=kind, n_embd=256, n_layer=6, n_head=8, vocab_size=4096)
    save_checkpoint(tmp_path / "model.phi", build_model(config))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "model.phi")]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    mapped_before = config.n_parameters * 4  # verified on load, so in memory
    assert grown < 0.2 * mapped_before + 4e6


def test_letting_go_changes_nothing(tmp_path):
    model = build_model(ModelConfig.preset("gpt-1k"))
    save_checkpoint(tmp_path / "model.phi", model)
    parameters = load_checkpoint(tmp_path / "model.phi").parameters
    own = {"a": np.ones(3), "b": np.broadcast_to(np.float32(2), (3,))}
    let_go([*parameters.values(), *own.values(), *model.parameters.values()])
    for name, value in model.parameters.items():
        np.testing.assert_array_equal(parameters[name], value)
    np.testing.assert_array_equal(own["a"], [1, 1, 1])
    assert np.abs(model.parameters["embedding"]).max() > 0
