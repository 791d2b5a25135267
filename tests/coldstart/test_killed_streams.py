"""kill -9 at random moments: each item exactly once, and the same bytes as without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fllm_export.cli.main import main
from fllm_export.coldstart import read_onboarded
from fllm_export.coldstart.onboard_journal import committed_parts

from .small_platform import as_lines, make_platform, records, rows_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("items", "kills"), [(1500, 4), pytest.param(10_000, 20, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_a_killed_stream_ends_as_an_undisturbed_one(tmp_path: Path, items: int, kills: int) -> None:
    pytest.importorskip("faiss")
    make_platform(tmp_path)
    stream = records(items)
    (tmp_path / "whole.jsonl").write_bytes(as_lines(stream))
    command = [sys.executable, "-m", "tests.coldstart.killed_runs", tmp_path, str(kills), "7"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) == kills

    parts = ["users", "whole.jsonl", "--recommender", "recommender.safetensors", "--out", "undisturbed"]
    paths = [part if part.startswith("--") else str(tmp_path / part) for part in parts]
    assert CliRunner().invoke(main, ["--quiet", "onboard", *paths, "--threads", "1"]).exit_code == 0

    found, expected = rows_of(tmp_path / "out"), rows_of(tmp_path / "undisturbed")
    assert found["item_id"].to_pylist() == [record["item_id"] for record in stream]
    assert found.equals(expected)
    for name in ("vector", "shares"):
        assert (
            found[name].combine_chunks().flatten().buffers()[1].to_pybytes()
            == expected[name].combine_chunks().flatten().buffers()[1].to_pybytes()
        )
    # The journal lists every part, and nothing else.
    listed = [part.name for part in committed_parts(tmp_path / "out")]
    assert listed == sorted(path.name for path in (tmp_path / "out" / "parts").iterdir())

    import faiss

    index = faiss.read_index(str(tmp_path / "items.faiss"))
    assert index.ntotal == 80 + items
    ids, vectors = read_onboarded(tmp_path / "out")
    for item in (0, items // 2, items - 1):
        np.testing.assert_array_equal(index.reconstruct(int(ids[item])), vectors[item])
