"""The C example, built from an installed prefix and run: it answers as the Python runtime does."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fllm_export import Runtime
from fllm_export.bundle.bundle import Bundle


@pytest.fixture(scope="module")
def top_users(build_example: Callable[[str], Path]) -> Path:
    return build_example("c") / "top_users"


def ask_c(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(part) for part in (program, *arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_c_example(top_users: Path, tiny_bundle: Bundle, runtime: Runtime, tmp_path: Path) -> None:
    z = runtime.encode(["a paper on graphs"])
    wanted = runtime.users.topk(z, 7)
    z.astype("<f4").tofile(tmp_path / "z")
    numbers = ",".join(str(number) for number in z[0])
    for vector in (tmp_path / "z", numbers):
        done = ask_c(top_users, tiny_bundle.path / "users", vector, "7")
        assert done.returncode == 0, done.stderr
        rows = np.array([line.split("\t") for line in done.stdout.splitlines()], np.float64)
        np.testing.assert_array_equal(rows[:, 0], wanted.user_ids[0])
        np.testing.assert_allclose(rows[:, 1], wanted.scores[0], rtol=1e-6)
        np.testing.assert_allclose(rows[:, 2], wanted.log_probs[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("table", "vector", "k", "code", "message"),
    [
        ("nowhere", "1", "1", 4, "nowhere"),
        ("users", "1,2", "1", 2, "does not hold 16 numbers"),
        ("users", ",".join(["0"] * 17), "1", 2, "does not hold 16 numbers"),
        ("users", ",".join(["nan"] * 16), "1", 2, "not finite"),
        ("users", ",".join(["0"] * 16), "401", 2, "1 to 400"),
        ("users", ",".join(["0"] * 16), "-1", 2, "1 to 400"),
        ("users", ",".join(["0"] * 16), "x", 2, "1 to 400"),
    ],
)
def test_c_example_refuses(
    table: str, vector: str, k: str, code: int, message: str, top_users: Path, tiny_bundle: Bundle
) -> None:
    done = ask_c(top_users, tiny_bundle.path / table, vector, k)
    assert done.returncode == code
    assert message in done.stderr
