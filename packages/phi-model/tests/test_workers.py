"""Workers share a batch: the same bits however they run, and a clear end when one dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from phi_model import GPT, ConfigError, ModelConfig, WorkerError, shared_zeros
from phi_model.team import can_fork

CONFIG = ModelConfig(vocab_size=50, seq_len=20, n_embd=16, n_layer=2, n_head=2)


def batch(rows: int, length: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows)
    ids = rng.integers(0, 50, (rows, length + 1))
    return ids[:, :-1], ids[:, 1:], rng.standard_normal((rows, length))


def run(workers: int, runner: str, rows: int = 5) -> tuple:
    model = GPT(CONFIG, seed=1)
    ids, targets, weights = batch(rows)
    model.start_workers(workers, batch_size=rows, seq_len=20, runner=runner)
    try:
        loss = model.loss_and_grad(ids, targets, weights)
        norm = model.gradient_norm
        log_probs = model.token_log_probs(ids, targets)
    finally:
        model.stop_workers()
    return loss, norm, model.gradients.flat.tobytes(), log_probs.tobytes()


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_every_runner_gives_the_same_bits(workers, rows):
    inline = run(workers, "inline", rows)
    assert run(workers, "threads", rows) == inline
    assert run(workers, "processes", rows) == inline
    assert run(workers, "inline", rows) == inline


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_more_workers_than_one_differ_by_rounding_alone(workers):
    one, many = run(1, "inline"), run(workers, "processes")
    assert many[0] == pytest.approx(one[0], rel=1e-5)
    assert many[1] == pytest.approx(one[1], rel=1e-4)
    ours, theirs = np.frombuffer(many[2], np.float32), np.frombuffer(one[2], np.float32)
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_the_norm_is_that_of_the_gradients():
    for workers in (1, 2):
        _, norm, flat, _ = run(workers, "inline")
        true = np.linalg.norm(np.frombuffer(flat, np.float32).astype(np.float64))
        assert norm == pytest.approx(true, rel=1e-5)


def test_a_job_of_the_callers_own_sees_shared_memory():
    model = GPT(CONFIG)
    seen = shared_zeros(3, np.float64)

    def note(member: int, number: float) -> None:
        seen[member] = number + member

    model.start_workers(3, batch_size=3, seq_len=8, runner="processes", jobs={"note": note})
    model.run_job("note", 10.5)
    model.stop_workers()
    assert seen.tolist() == [10.5, 11.5, 12.5]


def test_a_larger_batch_than_announced_still_works():
    model = GPT(CONFIG, seed=1)
    model.start_workers(2, batch_size=2, seq_len=4, runner="processes")
    ids, targets, weights = batch(5)
    loss = model.loss_and_grad(ids, targets, weights)
    model.stop_workers()
    assert loss == run(2, "inline")[0]


def test_a_killed_worker_ends_the_step_with_a_clear_error():
    model = GPT(CONFIG)
    ids, targets, _ = batch(4)
    model.start_workers(2, batch_size=4, seq_len=20, runner="processes")
    model.loss_and_grad(ids, targets)
    child = model._team._members[0].pid
    os.kill(child, signal.SIGKILL)
    time.sleep(0.1)
    with pytest.raises(WorkerError, match="died"):
        model.loss_and_grad(ids, targets)
    with pytest.raises(WorkerError, match="closed"):
        model.loss_and_grad(ids, targets)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)  # waited for: not even a zombie
    model.stop_workers()
    assert np.isfinite(model.loss_and_grad(ids, targets))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_stopping_does_not_wait_for_the_callers_own_children():
    """They inherit the pipes' ends, so the workers never see them close."""
    model = GPT(CONFIG)
    model.start_workers(2, batch_size=2, seq_len=8, runner="processes")
    other = os.fork()
    if other == 0:
        time.sleep(60)
        os._exit(0)
    try:
        started = time.monotonic()
        model.stop_workers()
        assert time.monotonic() - started < 10
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)


def test_an_error_in_a_worker_is_told():
    def fail(member: int) -> None:
        if member == 1:
            raise RuntimeError("the moon is full")

    for runner, kind in (("processes", WorkerError), ("threads", RuntimeError)):
        model = GPT(CONFIG)
        model.start_workers(2, batch_size=2, seq_len=8, runner=runner, jobs={"fail": fail})
        with pytest.raises(kind, match="the moon is full"):
            model.run_job("fail")
        model.stop_workers()


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_no_orphan_is_left_when_the_parent_ends(end):
    program = """
        import signal
        import numpy as np
        from phi_model import GPT, ModelConfig
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
        model = GPT(ModelConfig(vocab_size=50, n_embd=16, n_layer=2, n_head=2))
        model.start_workers(3, batch_size=3, seq_len=20, runner="processes")
        ids = np.zeros((3, 20), int)
        model.loss_and_grad(ids, ids)
        print(*[child.pid for child in model._team._members], flush=True)
        while True:
            model.loss_and_grad(ids, ids)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(children) == 2
    parent.send_signal(end)
    try:
        parent.wait(timeout=20)
    finally:
        parent.kill()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, children))


def test_works_where_there_are_no_semaphores():
    program = """
        import sys
        sys.modules["_multiprocessing"] = None  # as on Android, where SemLock is missing
        import numpy as np
        from phi_model import GPT, ModelConfig
        model = GPT(ModelConfig(vocab_size=50, n_embd=16, n_layer=2, n_head=2))
        for runner in ("processes", "threads"):
            print(model.start_workers(2, batch_size=2, seq_len=8, runner=runner))
            model.loss_and_grad(np.zeros((2, 8), int), np.zeros((2, 8), int))
        model.stop_workers()
        assert "multiprocessing" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


def test_blas_keeps_its_threads_outside_a_step():
    before = [info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"]
    run(2, "processes")
    run(2, "threads")
    after = [info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"]
    assert after == before


def test_beside_other_threads_nothing_is_forked():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert not can_fork()
        model = GPT(CONFIG)
        size, runner = model.start_workers(2, batch_size=2, seq_len=8)
        assert (size, runner) == (2, "threads")
        model.stop_workers()
    finally:
        stop.set()
        thread.join()


def test_auto_leaves_a_tiny_model_alone():
    model = GPT(ModelConfig.preset("gpt-1k"))
    assert model.start_workers("auto", batch_size=4, seq_len=32) == (1, "inline")
    model.stop_workers()


@pytest.mark.parametrize("workers", [0, -1, "two", 1.5, True])
def test_an_impossible_number_of_workers_is_refused(workers):
    with pytest.raises(ConfigError, match="workers"):
        GPT(CONFIG).start_workers(workers, batch_size=2, seq_len=8)
