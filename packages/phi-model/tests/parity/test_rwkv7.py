"""The logits of the package `rwkv`, whose authors are RWKV-7's, and their .pth read safely.

Runs only where torch and rwkv are installed (the `parity` environment). Weights are random, in
the shapes of an official model: heads of 64 channels, a head of its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from phi_model import RWKV7, CheckpointError, ModelConfig, RWKV7State
from phi_model.rwkv7_convert import from_official, read_pth, to_official

os.environ |= {"RWKV_V7_ON": "1", "RWKV_JIT_ON": "0", "RWKV_CUDA_ON": "0"}

Array = NDArray[Any]

CONFIG = ModelConfig(
    kind="rwkv7", vocab_size=300, n_embd=128, n_head=2, n_layer=3, tied_head=False, seq_len=4096
)


@pytest.fixture(scope="module")
def model() -> RWKV7:
    """An official start, with noise on top, so that no part of it is zero."""
    found = RWKV7(CONFIG, seed=1)
    rng = np.random.default_rng(0)
    for value in found.parameters.values():
        scale = 0.1 if value.ndim == 1 else 0.5 * value.shape[1] ** -0.5
        value[...] += scale * rng.standard_normal(value.shape, dtype=np.float32)
    return found


@pytest.fixture(scope="module")
def pth(model: RWKV7, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights as torch saves them."""
    path = tmp_path_factory.mktemp("official") / "small.pth"
    tensors = to_official(model.config, model.parameters)
    torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, path)
    return path


@pytest.fixture(scope="module")
def official(pth: Path) -> Any:
    """The package's model of them, on the CPU in float32."""
    rwkv = pytest.importorskip("rwkv.model", reason="pip install rwkv")
    return rwkv.RWKV(model=str(pth.with_suffix("")), strategy="cpu fp32")


def relative(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.filterwarnings("ignore")
def test_logits_are_those_of_rwkv_in_sequence_and_token_by_token(
    model: RWKV7, official: Any
) -> None:
    ids = [int(i) for i in np.random.default_rng(2).integers(0, 300, 50)]
    ours = model.logits([ids])[0]
    whole, _ = official.forward(ids, None, full_output=True)
    assert relative(ours, whole.numpy()) < 1e-4
    their_state, our_state = None, RWKV7State.zeros(model.config)
    for position, token in enumerate(ids):
        logits, their_state = official.forward([token], their_state)
        assert relative(ours[position], logits.numpy()) < 1e-4
        alone = model.logits([[token]], state=our_state)[0, 0]
        assert relative(alone, logits.numpy()) < 1e-4
    for i in range(model.config.n_layer):
        time, wkv, channel = (part.numpy() for part in their_state[3 * i : 3 * i + 3])
        assert relative(our_state.time_shift[0, i], time) < 1e-4
        assert relative(our_state.wkv[0, i], wkv) < 1e-4
        assert relative(our_state.channel_shift[0, i], channel) < 1e-4


def test_a_pth_is_read_without_torch_and_goes_both_ways(model: RWKV7, pth: Path) -> None:
    theirs, ours = torch.load(pth), read_pth(pth)
    assert list(theirs) == list(ours)
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor.numpy())
    config, parameters = from_official(ours)
    assert config == model.config
    for name, value in model.parameters.items():
        np.testing.assert_array_equal(parameters[name], value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_views_and_state_dicts_are_read(dtype: torch.dtype, tmp_path: Path) -> None:
    layer = torch.nn.Linear(5, 3).to(dtype)
    torch.save(layer.state_dict(), tmp_path / "a.pth")
    base = torch.arange(12.0).to(dtype).reshape(3, 4)
    torch.save({"t": base.T, "part": base[1:, 2], "scalar": base[0, 1]}, tmp_path / "b.pth")
    for name, tensor in layer.state_dict().items():
        found = read_pth(tmp_path / "a.pth")[name]
        np.testing.assert_array_equal(found, tensor.float().numpy().astype(found.dtype))
    views = read_pth(tmp_path / "b.pth")
    np.testing.assert_array_equal(views["t"], base.T.float().numpy())
    np.testing.assert_array_equal(views["part"], base[1:, 2].float().numpy())
    assert views["scalar"] == 1


class Harm:
    """What an attacker puts into a pickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("harm",))


def test_a_pth_that_would_run_something_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.zeros(2), "b": Harm()}, "harm.pth")
    with pytest.raises(CheckpointError, match="mkdir"):
        read_pth("harm.pth")
    assert not Path("harm").exists()
    Path("none.pth").write_bytes(b"not a zip")
    with pytest.raises(CheckpointError, match=r"none\.pth"):
        read_pth("none.pth")
    torch.save({"a": [1, 2]}, "list.pth")
    with pytest.raises(CheckpointError, match=r"list\.pth"):
        read_pth("list.pth")
    torch.save(torch.zeros(2), "tensor.pth")
    with pytest.raises(CheckpointError, match="table of tensors"):
        read_pth("tensor.pth")
