"""Batch jobs on Ray: the bytes of one machine, also when the job and its workers are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fllm_export import UserTable
from fllm_export.table.options import TableOptions
from fllm_export.table.writer import TableWriter, write_table

from .ray_cluster import cluster
from .test_building import ITEMS, ArrayRows, files

pytestmark = pytest.mark.slow
pytest.importorskip("ray", reason="ray is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")


def test_a_scoring_job_whose_processes_are_killed(tmp_path: Path) -> None:
    from fllm_export.scale.score_job import ScoreJob, score_here
    from fllm_export.scale.scoring import ScoreOptions, ScoreSource

    generator = np.random.default_rng(3)
    UserTable.create(tmp_path / "t", generator.standard_normal((20_000, 32)).astype(np.float32))
    np.save(tmp_path / "items.npy", generator.standard_normal((3000, 32)).astype(np.float32))
    command = [sys.executable, "-m", "fllm_export.cli", "score", str(tmp_path / "items.npy")]
    command += ["--source", str(tmp_path / "t"), "--out", str(tmp_path / "ray.parquet"), "-k", "20"]
    command += ["--part-items", "25", "--threads", "1", "--ray", "--workers", "2"]
    parts = tmp_path / "ray.parquet.parts"
    with cluster(4):
        environment = {**os.environ, "RAY_ADDRESS": "auto"}
        for wanted in (3, 30):  # the driver dies twice, and its workers with it
            with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as driver:
                until = time.monotonic() + 240
                while driver.poll() is None and len(list(parts.glob("part-*"))) < wanted:
                    assert time.monotonic() < until
                    time.sleep(0.01)
                driver.send_signal(signal.SIGKILL)
        before = len(list(parts.glob("part-*")))
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    assert before < 120
    found = pq.read_table(tmp_path / "ray.parquet")
    assert found["item"].to_pylist() == list(range(3000))
    source = ScoreSource(tmp_path / "t", threads=1)
    items = np.load(tmp_path / "items.npy")
    score_here(ScoreJob(source, items, tmp_path / "here.parquet", ScoreOptions(k=20, part_items=25)))
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()


def test_a_table_written_by_tasks(tmp_path: Path) -> None:
    from fllm_export.scale.building import write_in_parts
    from fllm_export.scale.ray_tasks import RayTasks
    from fllm_export.scale.row_sources import VectorRows

    options = TableOptions(quant="int8", shard_bytes=1 << 15, sketch="yes")
    rows = np.concatenate([chunk[0] for chunk in ArrayRows().chunks(0, 3000)])
    np.save(tmp_path / "rows.npy", rows)
    writer = TableWriter(tmp_path / "one", options, dim=64, items=ITEMS)
    write_table(writer, [(rows, np.arange(3000), None)])
    with cluster(2):
        write_in_parts(
            tmp_path / "many", VectorRows((tmp_path / "rows.npy",)), options, items=ITEMS, run=RayTasks(at_once=4)
        )
    assert files(tmp_path / "many") == files(tmp_path / "one")


@pytest.mark.parametrize("given", ["option", "environment"])
def test_a_cluster_that_is_not_there_is_an_error(tmp_path: Path, given: str) -> None:
    UserTable.create(tmp_path / "t", np.eye(8, dtype=np.float32))
    np.save(tmp_path / "items.npy", np.eye(8, dtype=np.float32))
    command = [sys.executable, "-m", "fllm_export.cli", "score", str(tmp_path / "items.npy"), "--ray", "-k", "2"]
    command += ["--source", str(tmp_path / "t"), "--out", str(tmp_path / "out.parquet")]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    if given == "option":
        command += ["--ray-address", "nowhere"]
    else:
        environment["RAY_ADDRESS"] = "nowhere"
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "no Ray cluster is reached at 'nowhere' (Invalid address format: nowhere); expected" in done.stderr
    assert not (tmp_path / "out.parquet").exists()
