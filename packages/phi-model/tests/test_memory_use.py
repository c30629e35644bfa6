"""The memory that a config announces is what its tables and arenas take, and the process too."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phi_model import GPT, ConfigError, ModelConfig

CHOICES = [
    {},
    {"tied_head": False, "vocab_size": 77},
    {"qk_norm": True},
    {"n_embd": 48, "n_head": 6, "n_kv_head": 2, "n_hidden": 31},
    {"n_embd": 48, "n_head": 6, "n_kv_head": 1, "qk_norm": True},
]


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 7), (4, 130)])
@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_it_is_what_is_allocated(
    choices: dict[str, Any], batch: int, length: int, workers: int
) -> None:
    config = ModelConfig.preset("gpt-100k", **choices)
    ids = np.zeros((batch, length), int)
    use = config.memory(batch, length, workers=workers)
    reading = config.memory(batch, length, workers=workers, training=False)

    def arenas(model: GPT, *, keep: bool) -> int:
        return sum(ws.nbytes for key, ws in model._workspaces.items() if key[1] == keep)

    model = GPT(config)
    model.start_workers(workers, batch_size=batch, seq_len=length, runner="inline")
    model.loss(ids, ids)
    assert arenas(model, keep=False) == reading.activations
    assert arenas(model, keep=True) == 0
    model.loss_and_grad(ids, ids)
    assert arenas(model, keep=True) == use.activations
    assert model.parameters.flat.nbytes == use.parameters == reading.parameters
    assert sum(table.flat.nbytes for table in model._worker_gradients) == use.gradients
    assert use.moments == 2 * use.parameters
    assert (reading.gradients, reading.moments) == (0, 0)
    assert use.total == use.parameters + use.gradients + use.moments + use.activations


def test_the_tables_are_hardly_larger_than_the_parameters() -> None:
    for preset in ("gpt-100k", "gpt-1m", "gpt-30m"):
        config = ModelConfig.preset(preset)
        assert config.memory(1, 1).parameters == pytest.approx(4 * config.n_parameters, rel=0.01)


def test_reading_needs_far_less_than_training() -> None:
    config = ModelConfig.preset("gpt-9m")
    assert config.memory(8, 256, training=False).total < config.memory(8, 256).total / 4


@pytest.mark.parametrize("preset", ["gpt-1k", "gpt-1m", "gpt-9m"])
def test_training_up_to_gpt_9m_fits_a_phone(preset: str) -> None:
    config = ModelConfig.preset(preset, vocab_size=4096)
    assert config.memory(8, 256, workers=2).total < 1e9


@pytest.mark.parametrize(
    ("sizes", "line"),
    [
        ({"batch_size": 0}, r"batch_size is 0; it must be a whole number, 1 or more"),
        ({"seq_len": 1.5}, r"seq_len is 1\.5; it must be"),
        ({"workers": "auto"}, r"workers is 'auto'; it must be"),
    ],
)
def test_sizes_that_are_none_are_refused(sizes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        ModelConfig().memory(**({"batch_size": 1, "seq_len": 8} | sizes))


PEAK = """
    import json, sys
    import numpy as np
    from phi_model import GPT, ModelConfig

    def kilobytes(field):  # of this program alone: getrusage counts its parent before exec as well
        for line in open("/proc/self/status"):
            if line.startswith(field):
                return int(line.split()[1])

    preset, changes, batch, length, workers, training = json.loads(sys.argv[1])
    warm = GPT(ModelConfig.preset("gpt-1m"))  # BLAS takes its own buffers
    ids = np.random.default_rng(0).integers(0, 1024, (batch, length))
    warm.loss_and_grad(ids[:1, :8], ids[:1, :8])
    before = kilobytes("VmRSS")
    model = GPT(ModelConfig.preset(preset, **changes))
    model.start_workers(workers, batch_size=batch, seq_len=length, runner="inline")
    if training:
        moments = [np.zeros_like(model.parameters.flat) for _ in range(2)]
        model.loss_and_grad(ids, ids)
        for moment in moments:
            moment += 1
    else:
        model.loss(ids, ids)
    print(1024 * (kilobytes("VmHWM") - before))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")
@pytest.mark.parametrize(
    ("preset", "changes", "batch", "length", "workers", "training"),
    [
        ("gpt-10k", {}, 32, 256, 1, True),
        ("gpt-100k", {}, 16, 256, 2, True),
        ("gpt-1m", {}, 8, 256, 1, True),
        ("gpt-1m", {"n_kv_head": 1, "qk_norm": True}, 8, 256, 2, True),
        ("gpt-9m", {}, 4, 128, 2, True),
        ("gpt-30m", {"vocab_size": 4096}, 1, 64, 1, True),
        ("gpt-9m", {"vocab_size": 4096}, 8, 256, 1, False),
    ],
)
def test_it_is_within_15_percent_of_the_measured_peak(
    preset: str, changes: dict[str, Any], batch: int, length: int, workers: int, training: bool
) -> None:
    arguments = json.dumps([preset, changes, batch, length, workers, training])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PEAK), arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    config = ModelConfig.preset(preset, **changes)
    use = config.memory(batch, length, workers=workers, training=training)
    assert use.total == pytest.approx(int(done.stdout), rel=0.15)
