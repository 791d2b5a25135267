"""A CPU without AVX: the module loads there and answers as the reference does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

QEMU = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")

SCRIPT = """
import sys

import numpy as np

from fllm_export import UserTable, _core

assert _core.cpu_levels() == ["scalar"], _core.cpu_levels()
rows = np.random.default_rng(0).standard_normal((500, 32)).astype(np.float32)
UserTable.create(sys.argv[1], rows, sketch="yes", cluster="yes")
for options in ({}, {"log_probs": "none"}, {"mode": "sample", "seed": 3}):
    native, reference = (
        UserTable.open(sys.argv[1], engine=engine).topk(rows[:3], 5, **options) for engine in ("native", "numpy")
    )
    np.testing.assert_array_equal(native.user_ids, reference.user_ids)
    np.testing.assert_array_equal(native.scores, reference.scores)
print("same")
"""


# The oldest CPU that NumPy's own wheels still run on.
@pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 is not installed")
def test_a_cpu_without_avx_gives_the_same_answers(tmp_path: object) -> None:
    command = [QEMU, "-cpu", "Nehalem", sys.executable, "-c", SCRIPT, f"{tmp_path}/table"]
    # Left to itself, the OpenBLAS of NumPy 2.4's wheels takes kernels with AVX here.
    environment = {**os.environ, "OPENBLAS_CORETYPE": "NEHALEM"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "same\n"
