"""Checkpoints: what is written comes back, and what is damaged is refused in one line."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
import textwrap
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from numpy.typing import NDArray

from phi_model import (
    GPT,
    Checkpoint,
    CheckpointError,
    ModelConfig,
    load_checkpoint,
    save_checkpoint,
)

Array = NDArray[Any]

CONFIG = ModelConfig(vocab_size=9, seq_len=8, n_embd=4, n_layer=2, n_head=1, n_hidden=3)
TOKENIZER = '{"model": "ü"}'.encode() + b"\0\xff"
METADATA = {"data": "stories/träume.txt", "loss": 2.5, "seeds": [1, 2], "nested": {"n": None}}


def extra_tensors() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    dtypes = ("f2", "f4", "f8", "i1", "u1", "i4", "u2", "u4", "i8", "u8")
    tensors = {f"extra/{d}": (100 * rng.random((3, 5))).astype(d) for d in dtypes}
    tensors |= {"extra/vector": np.arange(7.0), "extra/empty": np.empty((0, 3), np.float32)}
    tensors["extra/odd floats"] = np.array([np.nan, -np.inf, -0.0, 5e-324])
    return tensors


@pytest.fixture
def model(lively_model: Callable[..., GPT]) -> GPT:
    return lively_model(CONFIG)


@pytest.fixture
def full(model: GPT, tmp_path: Path) -> Path:
    """A file with everything in it."""
    path = tmp_path / "full.phi"
    save_checkpoint(
        path,
        model,
        step=12,
        tokenizer=TOKENIZER,
        metadata=METADATA,
        tensors=extra_tensors(),
    )
    return path


def places(content: bytes) -> list[tuple[int, int]]:
    """(start, end) of every msgpack object of a file, by msgpack's own reader."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(content))
    unpacker.feed(content)
    found, start = [], 0
    for _ in unpacker:
        found.append((start, unpacker.tell()))
        start = unpacker.tell()
    return found


def header_of(content: bytes) -> dict[str, Any]:
    start, end = places(content)[0]
    return msgpack.unpackb(content[start:end])


def with_header(content: bytes, **changes: Any) -> bytes:
    """The file with fields of its header changed and a header checksum that fits."""
    header = header_of(content) | changes | {"checksum": bytes(4)}
    checksum = zlib.crc32(msgpack.packb(header)).to_bytes(4, "big")
    return msgpack.packb(header | {"checksum": checksum}) + content[places(content)[0][1] :]


def assert_refused(path: Path, *, verify: bool = True) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, verify=verify)
    line = str(caught.value)
    assert str(path) in line
    assert "\n" not in line
    return line


# --- round trip ---------------------------------------------------------------------------------


def test_everything_comes_back_bit_by_bit(full: Path, model: GPT) -> None:
    checkpoint = load_checkpoint(full)
    assert checkpoint.config == CONFIG
    assert checkpoint.step == 12
    assert checkpoint.tokenizer == TOKENIZER
    assert checkpoint.metadata == METADATA
    assert checkpoint.path == full
    expected = {f"model/{name}": value for name, value in model.parameters.items()}
    expected |= extra_tensors()
    assert list(checkpoint.tensors) == list(expected)
    for name, value in expected.items():
        found = checkpoint.tensors[name]
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        assert found.tobytes() == value.tobytes()
    assert list(checkpoint.parameters) == list(model.parameters)


def test_the_model_that_comes_back_gives_the_same_bits(full: Path, model: GPT) -> None:
    checkpoint = load_checkpoint(full)
    assert checkpoint.model is checkpoint.model
    ids = np.arange(8)[None] % 9
    np.testing.assert_array_equal(checkpoint.model.logits(ids), model.logits(ids))
    checkpoint.model.parameters.flat += 1  # its own memory, not the file's
    np.testing.assert_array_equal(load_checkpoint(full).model.logits(ids), model.logits(ids))


def test_a_checkpoint_needs_no_more_than_a_model(model: GPT, tmp_path: Path) -> None:
    save_checkpoint(str(tmp_path / "bare.phi"), model)
    checkpoint = load_checkpoint(str(tmp_path / "bare.phi"))
    assert (checkpoint.step, checkpoint.tokenizer, checkpoint.metadata) == (0, None, {})
    assert list(checkpoint.tensors) == [f"model/{name}" for name in model.parameters]


@pytest.mark.parametrize("tied_head", [True, False])
def test_float64_models_and_both_heads(tied_head: bool, tmp_path: Path) -> None:
    config = ModelConfig(**CONFIG.to_dict() | {"tied_head": tied_head})
    wide = GPT(config, seed=4, dtype=np.float64)
    save_checkpoint(tmp_path / "wide.phi", wide)
    checkpoint = load_checkpoint(tmp_path / "wide.phi")
    again = checkpoint.build(dtype=np.float64)
    np.testing.assert_array_equal(again.parameters.flat, wide.parameters.flat)
    assert checkpoint.model.dtype == np.float32


def test_equal_input_gives_equal_bytes(full: Path, model: GPT, tmp_path: Path) -> None:
    again = tmp_path / "again.phi"
    everything = {"tokenizer": TOKENIZER, "metadata": METADATA, "tensors": extra_tensors()}
    save_checkpoint(again, model, step=12, **everything)
    assert again.read_bytes() == full.read_bytes()
    checkpoint = load_checkpoint(full)
    loaded = {n: t for n, t in checkpoint.tensors.items() if not n.startswith("model/")}
    save_checkpoint(
        again,
        checkpoint.model,
        step=checkpoint.step,
        tokenizer=checkpoint.tokenizer,
        metadata=checkpoint.metadata,
        tensors=loaded,
    )
    assert again.read_bytes() == full.read_bytes()


def test_any_memory_order_and_byte_order_is_taken(model: GPT, tmp_path: Path) -> None:
    plain = np.arange(12.0).reshape(3, 4)
    tensors = {
        "fortran": np.asfortranarray(plain),
        "strided": np.repeat(plain, 2, axis=1)[:, ::2],
        "big-endian": plain.astype(">f8"),
    }
    save_checkpoint(tmp_path / "orders.phi", model, tensors=tensors)
    found = load_checkpoint(tmp_path / "orders.phi").tensors
    for name in tensors:
        assert found[name].dtype.str == "<f8"
        np.testing.assert_array_equal(found[name], plain)


@pytest.mark.parametrize("value", [np.array(["text"]), np.array([object()]), np.ones(2, complex)])
def test_a_tensor_that_has_no_place_in_a_file_is_refused_by_name(
    value: Array, model: GPT, tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match="odd one is"):
        save_checkpoint(tmp_path / "x.phi", model, tensors={"odd one": value})
    assert not list(tmp_path.iterdir())


# --- layout -------------------------------------------------------------------------------------


def test_the_file_is_a_msgpack_stream_with_the_header_first(full: Path, model: GPT) -> None:
    content = full.read_bytes()
    unpacker = msgpack.Unpacker()
    unpacker.feed(content)
    header, *entries = list(unpacker)
    assert unpacker.tell() == len(content)
    fields = "format checksum version config step tokenizer metadata tensors"
    assert list(header) == fields.split()
    assert (header["format"], header["version"]) == ("phi-checkpoint", 1)
    assert header["config"] == CONFIG.to_dict()
    assert len(entries) == 2 * len(header["tensors"])
    expected = {f"model/{n}": value for n, value in model.parameters.items()} | extra_tensors()
    for description, padding, payload in zip(
        header["tensors"], entries[::2], entries[1::2], strict=True
    ):
        assert isinstance(payload, bytes)
        assert not any(padding)
        assert len(padding) < 64
        assert description["crc32"] == zlib.crc32(payload)
        value = np.frombuffer(payload, description["dtype"]).reshape(description["shape"])
        name = description["name"]
        np.testing.assert_array_equal(value, expected[name])


def test_the_header_carries_its_own_checksum(full: Path) -> None:
    content = full.read_bytes()
    header = header_of(content)
    zeroed = msgpack.packb(header | {"checksum": bytes(4)})
    assert header["checksum"] == zlib.crc32(zeroed).to_bytes(4, "big")


def test_payloads_begin_on_64_byte_boundaries(full: Path) -> None:
    content = full.read_bytes()
    for start, end in places(content)[2::2]:
        assert content[start] == 0xC6
        length = int.from_bytes(content[start + 1 : start + 5], "big")
        assert (start + 5 + length, (start + 5) % 64) == (end, 0)


def test_tensors_are_views_of_the_mapped_file(full: Path) -> None:
    checkpoint = load_checkpoint(full)
    for tensor in checkpoint.tensors.values():
        assert not tensor.flags.owndata
        assert not tensor.flags.writeable
        assert tensor.size == 0 or tensor.ctypes.data % 64 == 0
    base: Any = checkpoint.tensors["extra/f8"]
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)


def test_tensors_outlive_the_checkpoint_and_the_file_s_name(full: Path) -> None:
    tensor = load_checkpoint(full).tensors["extra/vector"]
    full.unlink()
    np.testing.assert_array_equal(tensor, np.arange(7.0))


def test_a_file_may_be_replaced_while_it_is_open(full: Path, model: GPT) -> None:
    before = load_checkpoint(full)
    value = before.parameters["embedding"].copy()
    model.parameters.flat += 1
    save_checkpoint(full, model)
    np.testing.assert_array_equal(before.parameters["embedding"], value)
    np.testing.assert_array_equal(load_checkpoint(full).parameters["embedding"], value + 1)


# --- damage -------------------------------------------------------------------------------------


def test_a_file_cut_short_anywhere_is_refused(full: Path) -> None:
    content = full.read_bytes()
    borders = {at + off for span in places(content) for at in span for off in (-1, 0, 1, 2, 5, 6)}
    rng = np.random.default_rng(0)
    cuts = borders | {*range(64)} | {*rng.integers(0, len(content), 300).tolist()}
    for cut in sorted(cut for cut in cuts if 0 <= cut < len(content)):
        full.write_bytes(content[:cut])
        assert_refused(full)
        assert_refused(full, verify=False)


def test_a_flipped_bit_anywhere_is_refused(full: Path) -> None:
    content = full.read_bytes()
    rng = np.random.default_rng(0)
    structure = {at for start, end in places(content)[1:] for at in range(start, start + 6)}
    positions = {*range(80)} | structure | {*rng.integers(0, len(content), 600).tolist()}
    for position in sorted(p for p in positions if p < len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << rng.integers(8)
        full.write_bytes(damaged)
        assert_refused(full)


def test_without_verification_only_flips_inside_tensors_go_unseen(full: Path) -> None:
    content = full.read_bytes()
    spans = places(content)
    inside = np.zeros(len(content), bool)
    for start, end in spans[2::2]:
        inside[start + 5 : end] = True
    for position in np.random.default_rng(1).integers(0, len(content), 400):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (int(position) % 8)
        full.write_bytes(damaged)
        if inside[position]:
            load_checkpoint(full, verify=False)
        else:
            assert_refused(full, verify=False)


def test_several_flipped_bytes_and_foreign_bytes_are_refused(full: Path) -> None:
    content = full.read_bytes()
    rng = np.random.default_rng(2)
    for _ in range(200):
        damaged = bytearray(content)
        start, length = rng.integers(0, len(content)), rng.integers(2, 200)
        damaged[start : start + length] = rng.bytes(length)
        full.write_bytes(damaged)
        assert_refused(full)


def test_damage_is_named(full: Path) -> None:
    content = full.read_bytes()
    at = places(content)[2][0] + 5
    full.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    assert "tensor model/embedding is damaged (checksum)" in assert_refused(full)
    full.write_bytes(content[:-1])
    assert "cut short" in assert_refused(full)
    full.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    assert "header" in assert_refused(full)
    full.write_bytes(content + b"\0")
    assert "1 bytes follow" in assert_refused(full)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "is empty"),
        (b"\0", "does not begin with a phi header"),
        (b"Once upon a time there was a little model.\n" * 9, "does not begin with a phi header"),
        (b"phi-checkpoint phi-checkpoint", "phi header"),
        (msgpack.packb({"format": "phi-checkpoint"}), "version None"),
        (msgpack.packb(["phi-checkpoint"]), "does not begin with a phi header"),
        (msgpack.packb({"other": "phi-checkpoint"}), "does not begin with a phi header"),
        (b"\x93NUMPY\x01\x00" + bytes(500), "does not begin with a phi header"),
    ],
)
def test_other_files_are_refused(content: bytes, line: str, tmp_path: Path) -> None:
    path = tmp_path / "other.phi"
    path.write_bytes(content)
    assert line in assert_refused(path)


def test_a_missing_file_is_a_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.phi"):
        load_checkpoint(tmp_path / "absent.phi")


def test_a_newer_version_asks_for_a_newer_reader(full: Path) -> None:
    full.write_bytes(with_header(full.read_bytes(), version=2))
    line = assert_refused(full)
    assert "format version 2" in line
    assert "reads up to 1: install a newer one" in line


def changed_tensors(content: bytes, **changes: Any) -> list[dict[str, Any]]:
    first, *rest = header_of(content)["tensors"]
    return [first | changes, *rest]


def broken_headers(content: bytes) -> Iterator[dict[str, Any]]:
    """Headers with a checksum that fits and content that does not."""
    header = header_of(content)
    config = header["config"]
    for step in (None, "7", 7.5, True, [1]):
        yield {"step": step}
    for tokenizer in ("text", 7, [1]):
        yield {"tokenizer": tokenizer}
    for metadata in (None, [], "x"):
        yield {"metadata": metadata}
    for other in (None, [], 7, "gpt", {}, ["n_embd"], {"n_embd": 4}):
        yield {"config": other}
    for name, value in [
        ("n_embd", 5),
        ("n_embd", -4),
        ("n_layer", 1),
        ("n_layer", 10**5),
        ("vocab_size", 10**12),
        ("vocab_size", 2**63),
        ("norm_eps", float("nan")),
        ("rope_base", "x"),
        ("kind", "rwkv9"),
        ("unknown", 1),
        ("tied_head", False),
    ]:
        yield {"config": config | {name: value}}
    for tensors in (None, 7, [], "abc", [1], [None], header["tensors"][1:], header["tensors"][:-1]):
        yield {"tensors": tensors}
    for shape in ([], [9], [9, 5], [-9, -4], [2**40, 2**40], [9, 4, 0], None, "94", [9.0, 4.0]):
        yield {"tensors": changed_tensors(content, shape=shape)}
    for dtype in ("O", "|O", "<c8", "<f8", "float32", None, 7, ["<f4"], "|V4"):
        yield {"tensors": changed_tensors(content, dtype=dtype)}
    for name in ("model/other", "embedding", "", None, 7, ["x"]):
        yield {"tensors": changed_tensors(content, name=name)}
    for crc32 in (0, None, "x", -1):
        yield {"tensors": changed_tensors(content, crc32=crc32)}


def test_a_header_that_makes_no_sense_is_refused_though_its_checksum_fits(full: Path) -> None:
    content = full.read_bytes()
    assert with_header(content) == content
    for changes in broken_headers(content):
        full.write_bytes(with_header(content, **changes))
        try:
            line = assert_refused(full)
        except BaseException as error:
            raise AssertionError(f"not refused properly: {changes}") from error
        assert len(line) < 1000


def test_a_missing_field_is_refused(full: Path) -> None:
    content = full.read_bytes()
    end = places(content)[0][1]
    for name in header_of(content):
        header = {k: v for k, v in header_of(content).items() if k != name}
        if name != "checksum":
            header["checksum"] = bytes(4)
            header["checksum"] = zlib.crc32(msgpack.packb(header)).to_bytes(4, "big")
        full.write_bytes(msgpack.packb(header) + content[end:])
        assert_refused(full)


HUGE = {
    "str 32": b"\xdb\xff\xff\xff\xff",
    "bin 32": b"\xc6\xff\xff\xff\xff",
    "ext 32": b"\xc9\xff\xff\xff\xff\x01",
    "array 32": b"\xdd\xff\xff\xff\xff",
    "map 32": b"\xdf\xff\xff\xff\xff",
}


@pytest.mark.parametrize("claim", HUGE.values(), ids=HUGE.keys())
def test_a_huge_claim_in_the_header_allocates_nothing(claim: bytes, tmp_path: Path) -> None:
    path = tmp_path / "huge.phi"
    start = b"\x82" + msgpack.packb("format") + msgpack.packb("phi-checkpoint")
    path.write_bytes(start + msgpack.packb("x") + claim + bytes(10_000))
    assert peak_bytes(lambda: assert_refused(path)) < 1_000_000


def test_huge_claims_of_tensors_allocate_nothing(full: Path) -> None:
    content = full.read_bytes()
    for shape in ([2**62], [2**31, 2**31], [2**33]):
        full.write_bytes(with_header(content, tensors=changed_tensors(content, shape=shape)))
        assert peak_bytes(lambda: assert_refused(full)) < 1_000_000
    first = places(content)[2][0]
    for length in (2**32 - 1, 2**31):
        claim = b"\xc6" + length.to_bytes(4, "big")
        full.write_bytes(content[:first] + claim + content[first + 5 :])
        assert peak_bytes(lambda: assert_refused(full)) < 1_000_000


def peak_bytes(action: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- whole or not at all ------------------------------------------------------------------------


def assert_untouched(folder: Path, path: Path, content: bytes) -> None:
    assert path.read_bytes() == content
    assert [entry.name for entry in folder.iterdir()] == [path.name]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(
    step: str, full: Path, model: GPT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = full.read_bytes()

    def no_space(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, step, no_space)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(full, model, step=99)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(tmp_path / "new.phi", model)
    assert_untouched(tmp_path, full, content)
    save_checkpoint(full, model, step=99)
    assert load_checkpoint(full).step == 99


def test_an_interruption_leaves_the_old_file(
    full: Path, model: GPT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = full.read_bytes()

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(full, model)
    assert_untouched(tmp_path, full, content)


def test_values_that_cannot_be_written_leave_the_old_file(
    full: Path, model: GPT, tmp_path: Path
) -> None:
    content = full.read_bytes()
    with pytest.raises(TypeError):
        save_checkpoint(full, model, metadata={"a function": print})
    assert_untouched(tmp_path, full, content)


def test_a_full_disk_leaves_the_old_file(full: Path, tmp_path: Path) -> None:
    """A child process that may write no more than 100 kB to a file."""
    pytest.importorskip("resource", reason="limits of file sizes are a matter of Unix")
    content = full.read_bytes()
    script = """
        import resource, sys
        from phi_model import GPT, ModelConfig, save_checkpoint
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save_checkpoint(sys.argv[1], GPT(ModelConfig.preset("gpt-100k")))
        except OSError as error:
            print("refused:", error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(full)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith("refused:")
    assert_untouched(tmp_path, full, content)


def test_a_folder_that_does_not_exist_is_an_os_error(model: GPT, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        save_checkpoint(tmp_path / "nowhere" / "x.phi", model)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="permissions of files are a matter of Unix")
def test_a_replaced_file_keeps_its_permissions(full: Path, model: GPT) -> None:
    full.chmod(0o640)
    save_checkpoint(full, model)
    assert full.stat().st_mode & 0o777 == 0o640


def test_the_checkpoint_s_repr_is_short(full: Path) -> None:
    checkpoint = load_checkpoint(full)
    assert isinstance(checkpoint, Checkpoint)
    assert "array" not in repr(checkpoint)
