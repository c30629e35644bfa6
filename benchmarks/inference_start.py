"""From the start of a process to its first token, and the memory that takes; prints JSON.

python inference_start.py MODEL.phi SECONDS     the time when the process was started
"""

import time

NUMPY_BEGINS = time.time()

import numpy  # noqa: E402

NUMPY_READY = time.time()

import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402


def private() -> int:
    """Bytes of pages that are this process's own."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024


def main() -> None:
    """Loads, makes a token, says what it took."""
    import phi_infer  # noqa: PLC0415 (its time counts)

    imported, before = time.time(), private()
    generator = phi_infer.load(sys.argv[1])
    loaded, after_load = time.time(), private()
    next(iter(generator.stream("Once upon a time", max_tokens=1, temperature=0)), "")
    done, after_token = time.time(), private()
    started = float(sys.argv[2])
    answer = {
        "python_ms": 1e3 * (NUMPY_BEGINS - started),
        "numpy_ms": 1e3 * (NUMPY_READY - NUMPY_BEGINS),
        "import_ms": 1e3 * (imported - NUMPY_READY),
        "load_ms": 1e3 * (loaded - imported),
        "token_ms": 1e3 * (done - loaded),
        "memory_after_load": after_load - before,
        "memory_after_token": after_token - before,
        "weights": 4 * generator.config.n_parameters,
        "numpy": numpy.__version__,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
