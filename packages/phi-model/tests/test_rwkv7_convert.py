"""Their names and shapes both ways, and a reader that executes nothing; torch is not needed."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phi_model import RWKV7, CheckpointError, ModelConfig
from phi_model.rwkv7_convert import from_official, read_pth, to_official


def small(**changes: Any) -> RWKV7:
    sizes = {"vocab_size": 20, "n_embd": 64, "n_head": 2, "n_layer": 2, "seq_len": 4096}
    return RWKV7(ModelConfig(kind="rwkv7", **(sizes | changes)), seed=3)


def write_pth(path: Path, program: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)


def test_both_ways_are_the_identity() -> None:
    model = small(tied_head=False)
    tensors = to_official(model.config, model.parameters)
    assert tensors["blocks.1.att.r_k"].shape == (2, 32)
    assert tensors["blocks.1.att.x_w"].shape == (1, 1, 64)
    assert tensors["blocks.1.att.w1"].shape == (64, 32)
    assert tensors["blocks.1.att.w2"].shape == (32, 64)
    assert tensors["blocks.1.ffn.key.weight"].shape == (256, 64)
    assert "blocks.0.att.v0" not in tensors
    config, parameters = from_official(tensors)
    assert config == model.config
    assert list(parameters) == list(model.parameters)
    for name, value in model.parameters.items():
        np.testing.assert_array_equal(parameters[name], value)


def test_a_tied_head_becomes_a_head() -> None:
    model = small()
    tensors = to_official(model.config, model.parameters)
    np.testing.assert_array_equal(tensors["head.weight"], tensors["emb.weight"])
    config, parameters = from_official(tensors)
    assert not config.tied_head
    other = RWKV7(config)
    other.parameters.assign(parameters)
    np.testing.assert_array_equal(other.logits([[1, 2]]), model.logits([[1, 2]]))


def test_tables_that_are_no_rwkv7_are_refused() -> None:
    tensors = to_official(small().config, small().parameters)
    with pytest.raises(CheckpointError, match="not the weights of an RWKV-7"):
        from_official({"wte": np.zeros((2, 2))})
    for missing in ("blocks.1.att.w1", "ln_out.bias"):
        with pytest.raises(CheckpointError, match=f"no {missing}"):
            from_official({name: v for name, v in tensors.items() if name != missing})
    with pytest.raises(CheckpointError, match="ranks"):
        from_official(tensors | {"blocks.1.att.w1": np.zeros((64, 48))})


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch harm'\ntR.",
        b"\x80\x02cbuiltins\neval\nq\x00X\x01\x00\x00\x001\x85R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02}q\x00",
        b"\x80\x02h\x07.",
        b"",
        pickle.dumps(io.BytesIO),
        pickle.dumps({"a": {1, 2}}, protocol=2),
        pickle.dumps({"a": 1}, protocol=2),
    ],
)
def test_programs_that_no_table_needs_are_refused(program: bytes, tmp_path: Path) -> None:
    write_pth(tmp_path / "a.pth", program)
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        read_pth(tmp_path / "a.pth")


def test_a_tensor_stays_within_its_storage(tmp_path: Path) -> None:
    """torch's own layout, by hand: a storage of 4 floats and tensors that see it in some way."""

    def program(offset: int, rows: int) -> bytes:
        storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
        storage += b"X\x03\x00\x00\x00cpuK\x04tQ"
        shape = b"K" + bytes([offset]) + b"K" + bytes([rows]) + b"K\x02\x86K\x02K\x01\x86"
        tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + shape + b"\x89}tR"
        return b"\x80\x02}(X\x01\x00\x00\x00t" + tensor + b"u."

    for offset, rows, sound in ((0, 2, True), (2, 1, True), (1, 2, False), (0, 200, False)):
        path = tmp_path / "a.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", program(offset, rows))
            archive.writestr("archive/data/0", np.arange(4, dtype="<f4").tobytes())
        if sound:
            expected = np.arange(4.0)[offset:].reshape(rows, 2)
            np.testing.assert_array_equal(read_pth(path)["t"], expected)
        else:
            with pytest.raises(CheckpointError, match="beyond its storage"):
                read_pth(path)
