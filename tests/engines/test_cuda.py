"""The engine cuda on the emulated GPU against the NumPy engine; and what is said where it cannot run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fllm_export import BudgetError, HardwareError, UsageError, UserTable

GENERATOR = np.random.default_rng(4)
ROWS = GENERATOR.standard_normal((6000, 40)).astype(np.float32)
IDS = np.sort(GENERATOR.choice(1 << 40, 6000, replace=False))
Z = GENERATOR.standard_normal((3, 40)).astype(np.float32)


@pytest.fixture
def emulated(emulated_gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLLM_CUDA_LIBRARY", str(emulated_gpu))


def assert_same(directory: Path, deny: object = (), z: npt.NDArray[np.float32] = Z, **options: object) -> None:
    tables = [UserTable.open(directory, engine=engine) for engine in ("cuda", "numpy")]
    found, expected = (table.topk(z, filter=table.filter(deny=deny), **options) for table in tables)
    np.testing.assert_array_equal(found.user_ids, expected.user_ids)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_allclose(found.logsumexp, expected.logsumexp, rtol=1e-5)
    np.testing.assert_array_equal(found.coverage, expected.coverage)
    assert found.complete.all()


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("quant", ["int8", "fp8"])
@pytest.mark.parametrize("gpu_bytes", [None, 300_000], ids=["resident", "streamed"])
def test_the_answers_are_the_reference_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu_bytes: int | None, quant: str
) -> None:
    if gpu_bytes is not None:
        monkeypatch.setenv("FLLM_GPU_BYTES", str(gpu_bytes))
    bias = GENERATOR.standard_normal(6000).astype(np.float32) * 3
    UserTable.create(tmp_path / "t", ROWS, IDS, bias=bias, quant=quant, shard_bytes=1 << 17, sketch="yes")
    for k in (1, 100, 6000):
        assert_same(tmp_path / "t", k=k)
    assert_same(tmp_path / "t", k=50, mode="sample", seed=[1, 2, 3])
    assert_same(tmp_path / "t", k=50, deny=IDS[::7])


@pytest.mark.usefixtures("emulated")
def test_tiles_of_rows_that_lie_together_are_scanned_as_they_are_stored(tmp_path: Path) -> None:
    UserTable.create(tmp_path / "t", ROWS, IDS, cluster="yes")
    assert_same(tmp_path / "t", k=100)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(("dim", "gpus"), [(1, "1"), (17, "2"), (48, "1"), (100, "2")])
@pytest.mark.parametrize("gpu_bytes", [None, 40_000], ids=["resident", "streamed"])
@pytest.mark.parametrize("quant", ["int2", "int4row"])
def test_rows_in_bit_planes_are_scanned_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quant: str, dim: int, gpu_bytes: int | None, gpus: str
) -> None:
    if gpu_bytes is not None:
        monkeypatch.setenv("FLLM_GPU_BYTES", str(gpu_bytes))
    monkeypatch.setenv("FLLM_EMULATED_GPUS", gpus)
    monkeypatch.setenv("FLLM_GPUS", gpus)
    users = 2213  # no multiple of a block's 16 rows, nor are the shards'
    rows = GENERATOR.standard_normal((users, dim)) * GENERATOR.lognormal(size=(users, 1))
    bias = None if dim == 17 else GENERATOR.standard_normal(users).astype(np.float32)
    options: dict[str, object] = {"quant": quant, "bias": bias, "cluster": "yes" if dim == 48 else "no"}
    options["shard_bytes"] = 700 * (dim // 2 + 30)
    UserTable.create(tmp_path / "t", rows.astype(np.float32), IDS[:users], **options)
    z = GENERATOR.standard_normal((40, dim)).astype(np.float32)
    for k in (1, 100, users):
        assert_same(tmp_path / "t", k=k, z=z[:2])
    assert_same(tmp_path / "t", k=20, z=z)
    assert_same(tmp_path / "t", k=50, z=z, deny=IDS[:users:7])
    assert_same(tmp_path / "t", k=50, z=z[:3], mode="sample", seed=[1, 2, 3])


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("quant", ["int2", "int4row"])
def test_rows_in_bit_planes_are_scanned_once_their_table_is_compact(tmp_path: Path, quant: str) -> None:
    UserTable.create(tmp_path / "t", ROWS[:1000], IDS[:1000], quant=quant)
    users = UserTable.open(tmp_path / "t")
    users.delete(IDS[100:300])
    with pytest.raises(UsageError, match=r"'cuda' cannot scan a table with deleted rows.*users compact"):
        UserTable.open(tmp_path / "t", engine="cuda")
    users.compact()
    assert_same(tmp_path / "t", k=100)


@pytest.mark.usefixtures("emulated")
def test_failures_are_the_houses_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    UserTable.create(tmp_path / "wide", ROWS, quant="fp16")
    with pytest.raises(UsageError, match="cannot scan fp16 rows"):
        UserTable.open(tmp_path / "wide", engine="cuda")
    UserTable.create(tmp_path / "t", ROWS)
    monkeypatch.setenv("FLLM_GPUS", "2")
    with pytest.raises(HardwareError, match="2 GPUs are requested, and 1 are available"):
        UserTable.open(tmp_path / "t", engine="cuda")
    monkeypatch.setenv("FLLM_GPUS", "some")
    with pytest.raises(UsageError, match="FLLM_GPUS is 'some'"):
        UserTable.open(tmp_path / "t", engine="cuda")
    monkeypatch.delenv("FLLM_GPUS")
    monkeypatch.setenv("FLLM_GPU_BYTES", "1000")
    with pytest.raises(BudgetError, match="too little free memory"):
        UserTable.open(tmp_path / "t", engine="cuda")


@pytest.mark.parametrize("path", ["/nowhere/libfllm_cuda.so", sys.executable])
def test_a_missing_library_is_told_and_nothing_else_is_chosen(tmp_path: Path, path: str) -> None:
    UserTable.create(tmp_path / "t", ROWS[:50])
    code = f"from fllm_export import UserTable; UserTable.open({str(tmp_path / 't')!r}, engine='cuda')"
    environment = {**os.environ, "FLLM_CUDA_LIBRARY": path}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "HardwareError" in done.stderr
    assert "the engine 'cuda' cannot run" in done.stderr
    assert path in done.stderr
    assert "engine 'native'" in done.stderr
