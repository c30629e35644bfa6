"""The hand-written C matrix product of OPT-007, compiled with the C compiler at hand."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

__all__ = ["FLAGS", "compiled_gemm"]

SOURCE = Path(__file__).with_name("optimisation_log_gemm.c")
FLAGS = ("-O3", "-march=native", "-ffast-math", "-shared", "-fPIC")
FLOATS = ctypes.POINTER(ctypes.c_float)

Product = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


def compiled_gemm(folder: Path) -> Product | None:
    """product(a, b, out): out = a b for float32 C arrays; None where there is no compiler."""
    compiler = shutil.which(os.environ.get("CC", "gcc")) or shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "gemm.so"
    subprocess.run([compiler, *FLAGS, SOURCE, "-o", library], check=True)
    code = ctypes.CDLL(str(library))
    rows, columns = code.rows_at_once(), code.columns_at_once()

    def product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        (m, depth), n = a.shape, b.shape[1]
        if m % rows or n % columns:
            raise ValueError(f"{m} x {n} is no multiple of {rows} x {columns}")
        out.fill(0)
        pointers = (array.ctypes.data_as(FLOATS) for array in (a, b, out))
        code.gemm(m, n, depth, *pointers)

    return product
